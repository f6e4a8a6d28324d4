"""Pipeline parallelism: cut a list of layers into chunks, run torch's 1F1B over them.

A chunk is the same kind of module with fewer layers; what it does not hold (embedding, final norm,
head) is an identity in it, and its parameters keep their full names. With `virtual` > 1 a rank
holds several chunks and the schedule is interleaved (SPEC 3.2).
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B

from flywright.errors import UserError
from flywright.parallel.tensor import refuse_tied
from flywright.spec import PlacementSpec

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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
    clone._modules = {
        name: _with_swaps(child, swaps, f"{prefix}.{name}" if prefix else name)
        for name, child in module.named_children()
    }
    return clone


def chunk_numbers(rank: int, ranks: int, virtual: int) -> list[int]:
    """Chunks that a pipeline rank holds: rank, rank + ranks, ... as interleaving has it."""
    return [rank + turn * ranks for turn in range(virtual)]


def pipeline_schedule(
    chunks: list[nn.Module], mesh: DeviceMesh, microbatches: int, loss: Loss
) -> Schedule1F1B | ScheduleInterleaved1F1B:
    """The schedule that runs forward and backward over this rank's chunks.

    On every rank: `schedule.step(inputs_on_first_rank, target=targets_on_last_rank, losses=[])`.
    `loss(output, target)` is one micro-batch's share of the global loss; gradients add up unscaled.
    """
    group = mesh.get_group()
    numbers = chunk_numbers(mesh.get_local_rank(), mesh.size(), len(chunks))
    total = mesh.size() * len(chunks)
    device = torch.device(mesh.device_type)
    stages: list[Any] = [
        PipelineStage(chunk, number, total, device, group=group)
        for chunk, number in zip(chunks, numbers, strict=True)
    ]
    if len(stages) == 1:
        return Schedule1F1B(stages[0], microbatches, loss_fn=loss, scale_grads=False)
    return ScheduleInterleaved1F1B(stages, microbatches, loss_fn=loss, scale_grads=False)
