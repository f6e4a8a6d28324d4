"""Between a sharded model and a weights folder: tensor by tensor, never the whole on one rank.

Nothing here knows a model or a file's layout: tensors are a mapping by name, writers are handed in.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from flywright.errors import FlywrightError
from flywright.files import atomic_folder
from flywright.parallel.tensor import refuse_tied

T = TypeVar("T")
Named = Iterator[tuple[str, Tensor]]


@torch.no_grad()
def fill(module: nn.Module, tensors: Mapping[str, Tensor], device: torch.device | str) -> None:
    """Give a chunk on the meta device, after `apply`, its memory on `device` and its values.

    `tensors` holds whole tensors by the chunk's names; of a mapped one only this rank's slice is
    read, and turned into the parameter's dtype. Raises UserError for tied weights.
    """
    refuse_tied(module)  # they would come apart
    module.to_empty(device=device)
    for name, mine in module.state_dict().items():
        whole = tensors[name]
        if isinstance(mine, DTensor):
            sizes, starts = compute_local_shape_and_global_offset(
                mine.shape, mine.device_mesh, mine.placements
            )
            mine = mine.to_local()
            for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
                whole = whole.narrow(axis, min(start, whole.shape[axis]), size)
        mine.copy_(whole)


@torch.no_grad()
def stream(module: nn.Module) -> Named:
    """Each tensor of a chunk by name, whole: all its ranks go through it together.

    What the receiver lets go is freed before the next is gathered: one stands in memory at a time.
    """
    for name, tensor in module.state_dict().items():
        yield name, tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def save_sharded(
    chunks: Sequence[nn.Module],
    mesh: DeviceMesh,
    folder: Path,
    write: Callable[[Path, Named, int], T],
    finish: Callable[[Path, list[T]], None],
) -> None:
    """A folder from a model over a mesh of all ranks, whole or absent; all ranks call it.

    The first rank of each pipeline stage hands its tensors to `write(temporary folder, tensors,
    stage)`; then rank 0 to `finish(temporary folder, what each write gave)` what is left to do. The
    folder is on a disk that all see. Where one rank fails, all raise.
    """
    is_first, stage = dist.get_rank() == 0, mesh["pp"].get_local_rank()
    writes = mesh["dp"].get_local_rank() == mesh["tp"].get_local_rank() == 0
    tensors = (each for chunk in chunks for each in stream(chunk))

    def written() -> T | None:
        try:
            return write(temporary, tensors, stage) if writes else None
        finally:
            deque(tensors, maxlen=0)  # the others gather on, even where a writer's disk is full

    with ExitStack() as stack:
        open_folder = lambda: stack.enter_context(atomic_folder(folder))  # noqa: E731
        temporary = _agreed(lambda: open_folder() if is_first else folder)[0]
        given = [each for each in _agreed(written) if each is not None]
        _agreed(lambda: finish(temporary, given) if is_first else None)
        _agreed(stack.close)  # where no rank failed, the folder takes its name here


def _agreed(act: Callable[[], T]) -> list[T]:
    """What `act` gave on each rank; where it raised on one, all raise."""
    given, error = None, None
    try:
        given = act()
    except Exception as caught:
        error = caught
    found: list = [None] * dist.get_world_size()
    dist.all_gather_object(found, (given, None if error is None else f"{error}"))
    if error is not None:
        raise error
    for rank, (_, told) in enumerate(found):
        if told is not None:
            raise FlywrightError(f"rank {rank}: {told}")
    return [each for each, _ in found]
