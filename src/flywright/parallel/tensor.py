"""Tensor and sequence parallelism: placements by module name become DTensor parallel styles.

Between the layers the stream is split along the sequence: each rank holds T / tp positions.
Words: `gather` makes a block's input whole; `column` splits the outputs and leaves them split;
`row` sums the outputs and splits them along the sequence; `sequence` computes on the split stream;
`heads` on a rank's own heads; `vocab` splits an embedding by its rows; `whole` is `sequence` whose
output is gathered; `head` is a column whose outputs are gathered; `replicate` keeps the whole on
every rank. All parameters become DTensors: optimizer, clipping and checkpoints see one kind.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import (
    DTensor,
    Partial,
    Replicate,
    Shard,
    distribute_module,
    distribute_tensor,
)
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.distributed.tensor.placement_types import Placement
from torch.nn import functional as F

from flywright.errors import UserError

SEQUENCE = 1  # the axis of [B, T, D]


class _Moved(ParallelStyle):
    """A module of whole weights: its first input arrives in one layout, its output leaves in
    another; as a local tensor, or as the DTensor that the modules within go on with.
    """

    def __init__(self, arrives: Placement, computes: Placement, leaves: Placement | None):
        super().__init__()
        self._arrives, self._computes, self._leaves = arrives, computes, leaves

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if self._leaves is None:  # a block: what is in it has placements of its own
            module.register_forward_pre_hook(partial(self._take, mesh=device_mesh))
            return module
        take = lambda module, inputs, mesh: self._take(module, inputs, mesh=mesh)  # noqa: E731
        give: Any = self._give  # torch declares None for what it gives back
        return distribute_module(module, device_mesh, None, take, give)

    def _take(self, _module: nn.Module, inputs: Any, *, mesh: DeviceMesh) -> Any:
        first, *rest = inputs
        if not isinstance(first, DTensor):
            first = DTensor.from_local(first, mesh, (self._arrives,), run_check=False)
        return (first.redistribute(placements=(self._computes,)), *rest)

    def _give(self, _module: nn.Module, output: DTensor, _mesh: DeviceMesh) -> Any:
        return output.redistribute(placements=(self._leaves or self._computes,)).to_local()


class _Vocabulary(ParallelStyle):
    """An embedding's rows, each rank its own; by hand, because DTensor's own would compute a
    gradient of all rows on every rank.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        rows = distribute_tensor(module.get_parameter("weight"), device_mesh, (Shard(0),))
        module.register_parameter("weight", nn.Parameter(rows))
        module.forward = partial(_embedded, module, device_mesh)
        return module


def _embedded(module: nn.Module, mesh: DeviceMesh, ids_BT: Tensor) -> Tensor:
    """[B, T / tp, D]: rows that are others' count as 0, and the ranks' are summed."""
    weight = module.get_parameter("weight")
    assert isinstance(weight, DTensor)
    found_BTD = _own_rows(weight.to_local(), mesh.get_local_rank(), ids_BT)
    partly = DTensor.from_local(found_BTD, mesh, (Partial(),), run_check=False)
    return partly.redistribute(placements=(_SPLIT,)).to_local()


def _own_rows(rows_VD: Tensor, place: int, ids_BT: Tensor) -> Tensor:
    own_BT = ids_BT - place * len(rows_VD)
    others_BT = (own_BT < 0) | (own_BT >= len(rows_VD))
    found_BTD = F.embedding(own_BT.masked_fill(others_BT, 0), rows_VD)
    return found_BTD.masked_fill(others_BT[..., None], 0)


_SPLIT, _WHOLE = Shard(SEQUENCE), Replicate()
_STYLES: dict[str, ParallelStyle] = {
    "gather": _Moved(_SPLIT, _WHOLE, None),
    "column": ColwiseParallel(),
    "row": RowwiseParallel(output_layouts=_SPLIT),
    "sequence": SequenceParallel(),
    "heads": SequenceParallel(sequence_dim=1, use_local_output=True),  # of [B, H, T, K]
    "vocab": _Vocabulary(),
    "whole": _Moved(_SPLIT, _SPLIT, _WHOLE),
    "head": ColwiseParallel(output_layouts=_WHOLE),
    "replicate": _Moved(_WHOLE, _WHOLE, _WHOLE),
}
_CUT = {"column": 0, "head": 0, "vocab": 0, "row": 1}  # the axis of the weight that is split


def tensor_parallel(module: nn.Module, mesh: DeviceMesh, ways: Mapping[str, str]) -> nn.Module:
    """Cut the weights of `module` over a one-axis mesh, in place.

    Raises UserError for a weight that no placement names, or that does not divide by the ranks.
    """
    refuse_tied(module)
    plan = {}
    for name, way in _checked(module, ways, mesh.size()):
        plan[name] = _STYLES[way]
        if way == "vocab":  # where a sequence enters
            check = partial(_check_parts, ranks=mesh.size())
            module.get_submodule(name).register_forward_pre_hook(check)
    return parallelize_module(module, mesh, plan)


def take_part(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    mesh: DeviceMesh,
    ways: Mapping[str, str],
    device: torch.device | str,
) -> None:
    """Give a module on the meta device this rank's part of its tensors, as plain weights.

    For steps of a few tokens, without gradients or a split sequence: `sum_parts` puts on what is
    then left to do between the ranks. Of mapped tensors a rank reads its slices; in their own dtype
    they stay mapped. Raises UserError as `tensor_parallel` does.
    """
    placed = dict(_checked(module, ways, mesh.size()))
    for name, parameter in list(module.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        part, axis = tensors[name], _CUT.get(placed[owner])
        if axis is not None:
            part = part.chunk(mesh.size(), axis)[mesh.get_local_rank()]
        part = nn.Parameter(part.to(device, parameter.dtype), requires_grad=False)
        module.get_submodule(owner).register_parameter(leaf, part)


def sum_parts(module: nn.Module, mesh: DeviceMesh, ways: Mapping[str, str]) -> None:
    """Have a module of parts (`take_part`) sum over the ranks what each has of an output."""

    def summed(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        dist.all_reduce(output, group=mesh.get_group())
        return output

    for name, child in module.named_modules():
        way = _way_of(name, ways)
        if way == "vocab" and not isinstance(child, nn.Identity):  # a later stage's
            child.forward = partial(_own_rows, child.get_parameter("weight"), mesh.get_local_rank())
        elif way != "row":
            continue
        child.register_forward_hook(summed)


def local_rows(weight: Tensor) -> tuple[Tensor, ProcessGroup | None]:
    """A matrix cut by its rows: this rank's, and the group that holds the others in rank order."""
    if not isinstance(weight, DTensor):
        return weight, None
    return weight.to_local(), weight.device_mesh.get_group()


def refuse_tied(module: nn.Module) -> None:
    """Raise UserError where two modules share a weight, which a cut would part."""
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    shared = set(names) - {name for name, _ in module.named_parameters()}
    if shared:
        line = "is tied to another weight: one process has to hold the model, without a mesh"
        raise UserError(f"{min(shared)} {line}")


def _checked(module: nn.Module, ways: Mapping[str, str], ranks: int) -> Iterator[tuple[str, str]]:
    """Each module that has a placement, with it. Raises UserError where the two do not fit."""
    for name, _ in module.named_parameters():
        if _way_of(owner := name.rpartition(".")[0], ways) is None:
            raise UserError(f"no tensor placement for {owner!r}: add it to the placements")
    for name, child in module.named_modules():
        way = _way_of(name, ways)
        if way is None or next(child.parameters(), None) is None:
            continue
        if way in _CUT:
            # a projection into heads is cut between them: what owns it says how wide they are
            owner = module.get_submodule(name.rpartition(".")[0])
            unit = getattr(owner, "head_dim", 1) if way == "column" else 1
            size = child.get_parameter("weight").shape[_CUT[way]] // unit
            if size % ranks:
                what = f"{size} heads do not divide" if unit > 1 else f"{size} does not divide"
                raise UserError(f"{name}: {what} by tp {ranks}")
        yield name, way


def _way_of(name: str, ways: Mapping[str, str]) -> str | None:
    return next((way for pattern, way in ways.items() if fnmatchcase(name, pattern)), None)


def _check_parts(_module: nn.Module, inputs: tuple[Tensor, ...], *, ranks: int) -> None:
    if (size := inputs[0].shape[SEQUENCE]) % ranks:
        raise UserError(f"a sequence of {size} tokens has no {ranks} equal parts: pad it")
