"""Pipeline parallelism: cut a list of layers into chunks, run torch's 1F1B over them.

A chunk is the same kind of module with fewer layers; what it does not hold (embedding, final norm,
head) is an identity in it, and its parameters keep their full names. With `virtual` > 1 a rank
holds several chunks and the schedule is interleaved (SPEC 3.2).
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B
from torch.distributed.pipelining.schedules import RESHARD, UNSHARD

from flywright.errors import UserError
from flywright.parallel.tensor import refuse_tied
from flywright.spec import PlacementSpec

Forward = Callable[[Any, Tensor, int], Tensor]  # (chunk, its input, micro-batch) -> output
Loss = Callable[[Tensor, int], Tensor]  # (the last chunk's output, micro-batch) -> its loss


def layer_range(layers: int, chunk: int, chunks: int) -> range:
    """Layers of one chunk; the first chunks get one more where they do not divide."""
    if chunks > layers:
        raise UserError(f"{layers} layers cannot be cut into {chunks} pipeline chunks")
    each, extra = divmod(layers, chunks)
    start = chunk * each + min(chunk, extra)
    return range(start, start + each + (chunk < extra))


def cut(module: nn.Module, chunk: int, chunks: int, placements: PlacementSpec) -> nn.Module:
    """Chunk number `chunk` of `chunks`: shares the parameters it keeps, holds no others."""
    refuse_tied(module)
    layers = module.get_submodule(placements.layers)
    kept = nn.ModuleList()
    for index in layer_range(len(list(layers.children())), chunk, chunks):
        kept.add_module(str(index), layers.get_submodule(str(index)))
    swaps: dict[str, nn.Module] = {placements.layers: kept}
    if chunk > 0:
        swaps |= {name: nn.Identity() for name in placements.first}
    if chunk < chunks - 1:
        swaps |= {name: nn.Identity() for name in placements.last}
    return _with_swaps(module, swaps)


def _with_swaps(module: nn.Module, swaps: dict[str, nn.Module], prefix: str = "") -> nn.Module:
    """A shallow copy of a module tree in which the named submodules are others."""
    if prefix in swaps:
        return swaps[prefix]
    if not any(name.startswith(f"{prefix}." if prefix else "") for name in swaps):
        return module
    clone = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, dict):  # hooks above all: a chunk's are its own
            clone.__dict__[name] = copy.copy(value)
    clone._modules = {
        name: _with_swaps(child, swaps, f"{prefix}.{name}" if prefix else name)
        for name, child in module.named_children()
    }
    return clone


def chunk_numbers(rank: int, ranks: int, virtual: int) -> list[int]:
    """Chunks that a pipeline rank holds: rank, rank + ranks, ... as interleaving has it."""
    return [rank + turn * ranks for turn in range(virtual)]


def runnable(microbatches: int, ranks: int, virtual: int) -> int:
    """The next number of micro-batches that torch's schedule can run: one a rank at least, and of
    an interleaved one whole rounds.
    """
    count = max(microbatches, ranks)
    while virtual > 1 and count % (count // ranks):
        count += 1
    return count


class Pipeline:
    """This rank's chunks, and the schedules that run micro-batches through them.

    forward(chunk, x, number) computes a chunk's output; loss(output, number) is one micro-batch's
    share of the global loss. Gradients add up unscaled.
    """

    def __init__(self, chunks: Sequence[nn.Module], mesh: DeviceMesh, forward: Forward, loss: Loss):
        self._mesh, self._chunks, self._loss = mesh, chunks, loss
        self._schedules: dict[tuple[Any, ...], Schedule1F1B | ScheduleInterleaved1F1B] = {}
        for chunk in chunks:
            chunk.forward = partial(_numbered, forward, chunk)  # FSDP's hooks stand around it

    def round_up(self, microbatches: int) -> int:
        return runnable(microbatches, self._mesh.size(), len(self._chunks))

    def run(self, ids_MN: Tensor, stream: Tensor, backward: bool) -> None:
        """Forward, and backward if asked for, of M micro-batches; what is lost is up to `loss`.

        stream: one micro-batch's activations between chunks, on the meta device.
        """
        microbatches, shape = len(ids_MN), tuple(ids_MN.shape)
        key = (shape, backward)
        if key not in self._schedules:
            self._schedules = {k: v for k, v in self._schedules.items() if k[1] != backward}
            self._schedules[key] = self._schedule(microbatches, ids_MN[:1], stream)
        schedule = self._schedules[key]
        numbers = torch.arange(microbatches)
        first, last = self._mesh.get_local_rank() == 0, self._is_last
        step: Callable[..., Any] = schedule.step if backward else schedule.eval
        inputs = (ids_MN,) if first else ()
        target = {"target": numbers} if last else {}
        step(*inputs, number=numbers, return_outputs=False, **target)

    @property
    def _is_last(self) -> bool:
        return self._mesh.get_local_rank() == self._mesh.size() - 1

    def _schedule(
        self, microbatches: int, ids_1N: Tensor, stream: Tensor
    ) -> Schedule1F1B | ScheduleInterleaved1F1B:
        ranks, rank = self._mesh.size(), self._mesh.get_local_rank()
        total = ranks * len(self._chunks)
        stages: list[Any] = []
        for chunk, number in zip(
            self._chunks, chunk_numbers(rank, ranks, len(self._chunks)), strict=True
        ):
            takes = ids_1N.to("meta") if number == 0 else stream
            device, group = torch.device(self._mesh.device_type), self._mesh.get_group()
            stage = PipelineStage(chunk, number, total, device, takes, stream, group=group)
            stages.append(stage)
        loss = lambda output, number: self._loss(output, int(number))  # noqa: E731
        if len(stages) == 1:
            return Schedule1F1B(stages[0], microbatches, loss_fn=loss, scale_grads=False)
        schedule = ScheduleInterleaved1F1B(stages, microbatches, loss_fn=loss, scale_grads=False)
        # weights stay gathered from the first micro-batch to the last (ZeRO 1): torch would gather
        # a chunk's again whenever its turn comes
        schedule.register_custom_function(UNSHARD, _hold)
        schedule.register_custom_function(RESHARD, lambda action, ctx: None)
        return schedule


def _numbered(forward: Forward, chunk: nn.Module, x: Tensor, number: Tensor) -> Tensor:
    return forward(chunk, x, int(number))


def _hold(action: Any, ctx: Any) -> None:
    """Count a chunk's weights as gathered: FSDP gathers them before its first forward."""
    ctx.schedule_ref.unsharded_stages.add(action.stage_index)
