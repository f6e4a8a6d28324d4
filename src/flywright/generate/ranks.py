"""Models cut over the ranks of a mesh (pp, tp): the first rank plans and draws, all compute.

    with joined(MeshSpec(tp=2, pp=2)) as ranks:
        over = OverRanks(ranks)
        part = over.open(folder, torch.float32)                    # on every rank
        if ranks.first:
            with over.leading(): Engine(part, tokenizer)...        # asked as ever
        else: over.follow()                                        # until the first rank is done

A step's numbers go to all ranks, its hidden states from stage to stage, its outputs to the first
rank. Each rank holds its layers' share of the weights and of the keys and values.

Shapes: T tokens of a step, D hidden, M places whose output is asked for, E outputs, R rows, P pages
of a row.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from flywright.errors import FlywrightError
from flywright.generate.cache import PagedCache, Step
from flywright.generate.runner import Local
from flywright.model import Decoder, RewardModel, open_meta
from flywright.model.sharding import DECODER, REWARD
from flywright.parallel import Ranks, cut, sum_parts, take_part

_NEVER = timedelta(days=3650)  # a server may idle; within a step the mesh's own time-out holds
_END = [-1, 0, 0, 0, 0]


class Part(Local):
    """This rank's part of a model; called on the first rank, all of them compute a step."""

    def __init__(self, over: "OverRanks", model: Decoder | RewardModel, cache: PagedCache):
        super().__init__(model, cache)
        self.whole = None  # its layers' sums go over the ranks, or its body lacks an end
        ranks = over.ranks
        assert ranks.mesh is not None
        self._over, self._tp, self._pp = over, ranks.mesh["tp"], ranks.mesh["pp"]
        self._stage, self._last = ranks.place("pp"), ranks.size("pp") - 1
        self._wide, self._dtype = model.spec.hidden_size, next(model.parameters()).dtype
        self.exact = self.exact and self._tp.size() <= 2  # a + b = b + a; of three it is not said
        if self._tp.size() > 1:
            placed = REWARD if isinstance(model, RewardModel) else DECODER
            sum_parts(nn.ModuleDict({"model": self._body}), self._tp, placed.tensor)

    def __call__(self, step: Step) -> Tensor:
        """Outputs [M, E] as a Local has them, in fp32."""
        return self._over.compute(self, step)

    def share(self, step: Step) -> Tensor:
        """Compute this rank's share of a step; the outputs on the first rank, elsewhere nothing."""
        pipe, x_T = self._pp.get_group(), step.ids
        if self._stage > 0:
            x_T = torch.empty(len(step.ids), self._wide, dtype=self._dtype, device=self.device)
            dist.recv(x_T, group=pipe, group_src=self._stage - 1)
        hidden_TD = self._through(step, x_T)
        outputs_ME = hidden_TD.new_empty(0)
        if self._stage == self._last:
            outputs_ME = self._whole(self._read(step, hidden_TD).float())
        else:
            dist.send(hidden_TD.contiguous(), group=pipe, group_dst=self._stage + 1)
        if self._last and self._tp.get_local_rank() == 0:
            if self._stage == self._last:
                dist.send(outputs_ME, group=pipe, group_dst=0)
            elif self._stage == 0:
                rows = max(len(step.wanted), self.least_rows)
                outputs_ME = torch.empty(rows, self.outputs, device=self.device)
                dist.recv(outputs_ME, group=pipe, group_src=self._last)
        return outputs_ME

    def _whole(self, outputs_ME: Tensor) -> Tensor:
        """The tp ranks' parts of a vocabulary side by side, on the first of them."""
        if self._tp.size() == 1 or self.labels:  # a reward head is whole on every rank
            return outputs_ME
        parts = None
        if self._tp.get_local_rank() == 0:
            parts = [torch.empty_like(outputs_ME) for _ in range(self._tp.size())]
        dist.gather(outputs_ME.contiguous(), parts, group=self._tp.get_group(), group_dst=0)
        return torch.cat(parts, -1) if parts else outputs_ME


class OverRanks:
    """Models over the ranks of a mesh without dp, all of which make one.

    Where a step fails in the middle, the others may wait within it for ever: then the first rank
    sends itself SIGTERM, takes no more steps, and `leading` ends in a FlywrightError.
    """

    def __init__(self, ranks: Ranks):
        self.ranks = ranks
        self._orders: Any = dist.new_group(backend="gloo", timeout=_NEVER)
        self._parts: list[Part] = []
        self._lock = threading.Lock()  # an engine's and a scorer's steps take turns
        self._ended = ""

    def open(
        self,
        folder: Path | str,
        dtype: torch.dtype | None = None,
        max_batch: int = 64,
        cache_bytes: int = 1 << 31,
    ) -> Part:
        """This rank's part of a folder's model, with at most `cache_bytes` of keys and values.

        All ranks open the same folders in the same order. Raises UserError for a folder that is not
        a model's, or that does not divide by the mesh.
        """
        model, tensors = open_meta(folder, dtype)
        placements = REWARD if isinstance(model, RewardModel) else DECODER
        if isinstance(model, Decoder) and model.spec.tied_embeddings:
            # nothing trains: each end of the pipeline may have its own
            model.lm_head.weight = nn.Parameter(model.lm_head.weight.clone())
        mesh, stages = self.ranks.mesh, self.ranks.size("pp")
        assert mesh is not None
        chunk: Any = cut(model, self.ranks.place("pp"), stages, placements)
        take_part(chunk, tensors, mesh["tp"], placements.tensor, mesh.device_type)
        # as many pages on each rank as there is room for in the first stage, which has most layers
        spec, tp = model.spec, self.ranks.size("tp")
        own = {"layers": -(-spec.layers // stages), "kv_heads": spec.kv_heads // tp}
        spec = spec.model_copy(update={**own, "heads": spec.heads // tp})
        weight = next(chunk.parameters())
        cache = PagedCache(spec, max_batch, weight.dtype, weight.device, cache_bytes)
        self._parts.append(Part(self, chunk, cache))
        return self._parts[-1]

    def compute(self, part: Part, step: Step) -> Tensor:
        """The first rank's: have all ranks compute a step. Raises FlywrightError after the end."""
        with self._lock:
            if self._ended:
                raise FlywrightError(self._ended)
            try:
                self._tell(self._parts.index(part), step)
                return part.share(step)
            except Exception as error:
                self._ended = f"a step over the ranks failed: {error}"
                os.kill(os.getpid(), signal.SIGTERM)
                raise

    @contextmanager
    def leading(self) -> Iterator[None]:
        """The first rank's: ask inside, once all ranks follow; when it is left, `follow` ends."""
        dist.barrier(group=self._orders)  # who has more to load is waited for
        try:
            yield
        finally:
            with self._lock:
                failed, self._ended = self._ended, self._ended or "the ranks have ended"
                if not failed:
                    dist.broadcast(torch.tensor(_END), group=self._orders, group_src=0)
        if failed:
            raise FlywrightError(failed)

    @torch.inference_mode()
    def follow(self) -> None:
        """The others': compute what the first one orders until it is done; heeds no signal."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        dist.barrier(group=self._orders)
        while (order := self._heard()) is not None:
            part, step = order
            part.share(step)

    def _tell(self, number: int, step: Step) -> None:
        """A header of sizes, then all numbers of the step."""
        flat = torch.cat([each.flatten().int() for each in vars(step).values()]).cpu()
        head = torch.tensor([number, len(step.ids), *step.table.shape, len(step.wanted)])
        dist.broadcast(head, group=self._orders, group_src=0)
        dist.broadcast(flat, group=self._orders, group_src=0)

    def _heard(self) -> tuple[Part, Step] | None:
        head = torch.tensor(_END)
        dist.broadcast(head, group=self._orders, group_src=0)
        number, T, R, P, M = head.tolist()
        if number < 0:
            return None
        flat = torch.empty(3 * T + M + R * P, dtype=torch.int32)
        dist.broadcast(flat, group=self._orders, group_src=0)
        part = self._parts[number]
        return part, Step.parted(flat.to(part.device), T, R, P)
