"""Tensor parallelism: placements by module name become DTensor parallel styles.

Words: `column` splits the outputs and leaves them split; `row` splits the inputs and sums the
outputs; `vocab` splits an embedding by its rows; `head` is a column whose outputs are gathered;
`replicate` keeps the whole on every rank. All parameters become DTensors, so that the optimizer,
gradient clipping and checkpoints see one kind.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, distribute_module
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)

from flywright.errors import UserError


class _WholeEverywhere(ParallelStyle):
    """Every rank holds all of the module and computes the same."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        return distribute_module(module, device_mesh, None, _input_to_dtensor, _output_to_local)


def _input_to_dtensor(_module: nn.Module, inputs: Any, mesh: DeviceMesh) -> Any:
    first, *rest = inputs
    if not isinstance(first, DTensor):
        first = DTensor.from_local(first, mesh, (Replicate(),), run_check=False)
    return (first, *rest)


def _output_to_local(_module: nn.Module, output: DTensor, _mesh: DeviceMesh) -> Any:
    # torch declares None here, but uses what comes back
    return output.to_local()


def _style(way: str) -> ParallelStyle:
    if way == "column":
        return ColwiseParallel()
    if way == "row":
        return RowwiseParallel()
    if way == "vocab":
        return RowwiseParallel(input_layouts=Replicate())
    if way == "head":
        return ColwiseParallel(output_layouts=Replicate())
    return _WholeEverywhere()


def tensor_parallel(module: nn.Module, mesh: DeviceMesh, ways: Mapping[str, str]) -> nn.Module:
    """Cut the weights of `module` over a one-axis mesh, in place.

    Raises UserError for a weight that no placement names, or that does not divide by the ranks.
    """
    refuse_tied(module)
    _check_all_placed(module, ways)
    plan = {}
    for name, way in _placed(module, ways):
        _check_divides(name, module.get_submodule(name), way, mesh.size())
        plan[name] = _style(way)
    return parallelize_module(module, mesh, plan)


def refuse_tied(module: nn.Module) -> None:
    """Raise UserError where two modules share a weight, which a cut would part."""
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    shared = set(names) - {name for name, _ in module.named_parameters()}
    if shared:
        raise UserError(f"{min(shared)} is tied to another weight: untie it before it is cut")


def _placed(module: nn.Module, ways: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, child in module.named_modules():
        way = _way_of(name, ways)
        if way and any(True for _ in child.parameters()):
            yield name, way


def _way_of(name: str, ways: Mapping[str, str]) -> str | None:
    return next((way for pattern, way in ways.items() if fnmatchcase(name, pattern)), None)


def _check_all_placed(module: nn.Module, ways: Mapping[str, str]) -> None:
    for name, _ in module.named_parameters():
        owner = name.rpartition(".")[0]
        if _way_of(owner, ways) is None:
            raise UserError(f"no tensor placement for {owner!r}: add it to the placements")


def _check_divides(name: str, module: nn.Module, way: str, ranks: int) -> None:
    if way == "replicate":
        return
    weight = module.get_parameter("weight")
    axis = 1 if way == "row" else 0
    if weight.shape[axis] % ranks:
        raise UserError(f"{name}: {weight.shape[axis]} does not divide by tp {ranks}")
