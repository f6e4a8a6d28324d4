"""Forward and backward of a global batch: on one process, or as this rank's share of a mesh.

Micro-batches are those of one process, whatever the mesh; dp ranks are dealt them in turn, and one
that gets fewer is given some in which nothing is trained, since all ranks meet in each. In a
pipeline all have the same number of tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from flywright.data.batch import Batch, Sample, collate, micro_batches
from flywright.parallel import Pipeline, Ranks, exchange, let_go
from flywright.plan import peak_flops
from flywright.train.meter import Meter
from flywright.train.objectives.base import Model, batch_hidden, through

# (model or its last chunk, micro-batch, hidden states) -> its share of the global loss
Share = Callable[[Model, Batch, Tensor], Tensor]


class Passes:
    """A model, or this rank's chunks of it, and the way of micro-batches through them.

    A micro-batch holds `most_tokens` at most; `bf16`: a mesh's fp32 weights are gathered in that.
    """

    def __init__(
        self,
        parts: Sequence[Model],
        most_tokens: int,
        ranks: Ranks | None = None,
        bf16: bool = False,
    ):
        self.parts, self.ranks, self._most_tokens = parts, ranks or Ranks(), most_tokens
        self.computes_in = torch.bfloat16 if bf16 else next(parts[0].parameters()).dtype
        self._now: Sequence[Batch] = ()
        self._share: Share | None = None
        self._pipeline: Pipeline | None = None
        mesh = self.ranks.mesh
        self.device = torch.device(mesh.device_type) if mesh else next(parts[0].parameters()).device
        if mesh is not None and self.ranks.size("pp") > 1:
            self._pipeline = Pipeline(parts, mesh["pp"], self._chunk, self._last)

    @property
    def peak(self) -> float:
        """FLOP/s at most of the ranks that compute one replica's batches together; 0: unknown."""
        own = peak_flops(self.device.type, self.computes_in == torch.bfloat16)
        return own * self.ranks.size("pp") * self.ranks.size("tp")

    def groups(self, samples: Sequence[Sample]) -> list[list[Sample]]:
        """The micro-batches of a global batch, of all ranks."""
        return micro_batches(samples, self._most_tokens)

    def batches(self, groups: Sequence[Sequence[Sample]]) -> list[Batch]:
        """This rank's of the micro-batches, as it computes them."""
        own, count = self.ranks.deal(groups)
        tokens = 0
        if self._pipeline is not None:
            count = self._pipeline.round_up(count)
            longest = max(sum(sample.tokens for sample in group) for group in groups)
            tokens = max(longest, self._most_tokens)
        own += [[] for _ in range(count - len(own))]
        return [self._collated(group, tokens, groups[0][0]) for group in own]

    def _collated(self, group: Sequence[Sample], tokens: int, like: Sample) -> Batch:
        split = self.ranks.size("tp")  # the sequence's own: its parts must be equal
        tokens = max(tokens, sum(sample.tokens for sample in group), 1)
        return collate(group, -(-tokens // split) * split, like).to(self.device)

    def over(self, samples: Sequence[Sample], share: Share) -> Iterator[tuple[int, int]]:
        """Forwards of all samples, of some micro-batches at once; (done, in all) after each."""
        groups, some = self.groups(samples), 4 * self.ranks.size("dp") * self.ranks.size("pp")
        for start in range(0, len(groups), some):
            self.run(self.batches(groups[start : start + some]), share)
            yield min(len(groups), start + some), len(groups)

    def run(
        self,
        batches: Sequence[Batch],
        share: Share,
        collect: Callable[[], None] | None = None,
        meter: Meter | None = None,
    ) -> None:
        """Each micro-batch forward, and backward where `collect` takes its gradients."""
        self._share = share
        time = meter.time if meter else (lambda _part: nullcontext())
        if self._pipeline is not None:
            with time("pipeline"):
                self._through_pipeline(self._pipeline, batches, collect is not None)
            if collect:
                collect()
        else:
            model = self.parts[0]
            for number, batch in enumerate(batches):
                exchange(model, self.ranks.spec.zero > 1 or number == len(batches) - 1)
                with time("forward"):
                    loss = share(model, batch, batch_hidden(model, batch))
                if collect:
                    with time("backward"):
                        loss.backward()
                        collect()
        for part in self.parts if collect is None else ():
            let_go(part)

    def _through_pipeline(self, pipeline: Pipeline, batches: Sequence[Batch], back: bool) -> None:
        self._now = batches
        ids_MN = torch.stack([batch.ids_N for batch in batches])
        positions = ids_MN.shape[1] // self.ranks.size("tp")
        shape = (1, positions, self.parts[0].spec.hidden_size)
        stream = torch.empty(shape, dtype=self.computes_in, device="meta", requires_grad=back)
        pipeline.run(ids_MN, stream, back)

    def _chunk(self, chunk: Model, x_1N: Tensor, number: int) -> Tensor:
        return through(chunk, self._now[number], x_1N)

    def _last(self, hidden_1ND: Tensor, number: int) -> Tensor:
        assert self._share is not None
        return self._share(self.parts[-1], self._now[number], hidden_1ND[0])
