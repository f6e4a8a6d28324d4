"""The ranks that train together: who this process is among them, and what they tell one another.

`Ranks()` is one process alone; everything then is its own word, and no process group is needed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from flywright.errors import FlywrightError, UserError
from flywright.parallel.mesh import build_mesh, process_group, started_ranks
from flywright.spec import MeshSpec

T = TypeVar("T")
_PATIENT = timedelta(days=30)  # others wait while the first rank gathers data


@contextmanager
def joined(spec: MeshSpec) -> Iterator["Ranks"]:
    """Join the ranks that torchrun or Slurm started, as many as one phase of the mesh has.

    Raises UserError where they are not, FlywrightError where they cannot reach each other.
    """
    dps = {spec.dp, *(dp for _, dp in spec.dp_ramp)}
    phases = [spec.model_copy(update={"dp": dp}) for dp in dps]
    now = next((phase for phase in phases if phase.ranks == started_ranks()), spec)
    with process_group(now) as device:
        yield Ranks(build_mesh(now, device.type) if now.ranks > 1 else None, spec)


class Ranks:
    """A process among the ranks of a mesh (pp, dp, tp), or alone."""

    def __init__(self, mesh: DeviceMesh | None = None, spec: MeshSpec | None = None):
        self.mesh, self.spec = mesh, spec or MeshSpec()
        self._patient: Any = mesh and dist.new_group(backend="gloo", timeout=_PATIENT)

    def size(self, axis: str) -> int:
        return self.mesh[axis].size() if self.mesh else 1

    def place(self, axis: str) -> int:
        """Where along an axis this process stands."""
        return self.mesh[axis].get_local_rank() if self.mesh else 0

    @property
    def first(self) -> bool:
        return self.mesh is None or dist.get_rank() == 0

    @property
    def _speaks(self) -> bool:
        """Whether this is one of the ranks that know a loss, each of another share."""
        return self.place("tp") == 0 and self.place("pp") == self.size("pp") - 1

    def deal(self, groups: Sequence[T]) -> tuple[list[T], int]:
        """This dp rank's of them, dealt in turn, and how many the fullest rank gets."""
        own = list(groups[self.place("dp") :: self.size("dp")])
        return own, -(-len(groups) // self.size("dp"))

    def summed(self, values: dict[str, float]) -> dict[str, float]:
        """Sums over dp of what the ranks at the pipeline's end say; the same on all ranks.

        The names must be the same there; other ranks' values do not count.
        """
        if self.mesh is None:
            return values
        names = self.agreed(list(values), dist.get_world_size() - 1)
        said = [values[name] if self._speaks else 0.0 for name in names]
        sums = torch.tensor(said, dtype=torch.float64, device=self.mesh.device_type)
        dist.all_reduce(sums)
        return dict(zip(names, sums.tolist(), strict=True))

    def norm(self, own: torch.Tensor) -> torch.Tensor:
        """The norm of what all pipeline ranks hold, from this one's."""
        if self.size("pp") == 1:
            return own
        assert self.mesh is not None
        square = own.square()
        dist.all_reduce(square, group=self.mesh["pp"].get_group())
        return square.sqrt()

    def anyone(self, wants: bool) -> bool:
        """Whether any rank says so; a meeting of all."""
        if self.mesh is None:
            return wants
        said = torch.tensor(float(wants), device=self.mesh.device_type)
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said)

    def agreed(self, value: T, rank: int = 0) -> T:
        """What one rank says, on all ranks, which wait for it however long it takes."""
        if self.mesh is None:
            return value
        said: list[Any] = [value]
        dist.broadcast_object_list(said, src=rank, group=self._patient)
        return said[0]

    def by_first(self, act: Callable[[], T]) -> T | None:
        """The first rank acts, the others wait until it has; its error ends all with one status."""
        given, error = None, None
        try:
            given = act() if self.first else None
        except Exception as caught:
            error = caught
        told = self.agreed(error and (str(error), isinstance(error, UserError)))
        if error:
            raise error
        if told:
            raise (UserError if told[1] else FlywrightError)(told[0])
        return given

    def collected(self, own: list[T]) -> list[T]:
        """What the ranks at the pipeline's end made of what they were dealt, in its order."""
        if self.mesh is None:
            return own
        said: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(said, own if self._speaks else None, group=self._patient)
        each = [rows for rows in said if rows is not None]
        total = sum(len(rows) for rows in each)
        return [each[number % len(each)][number // len(each)] for number in range(total)]
