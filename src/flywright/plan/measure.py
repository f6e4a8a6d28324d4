"""What a forward and a backward hold and exchange, measured on tensors without bytes.

with fake_ranks(6144, rank=0), FakeTensorMode(...), Live() as live: measure(live, micro_batch)
Real modules run under torch's FakeTensorMode; every storage that an operation makes is counted
while it lives, and every collective is counted by name.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flywright.plan.schedule import Op

_SHARDED = ("_allgather_base_", "_reduce_scatter_base_")  # what FSDP calls, over the dp ranks


@contextmanager
def fake_ranks(count: int, rank: int) -> Iterator[None]:
    """One process that believes itself rank `rank` of `count`; what others would send is noise."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    joined = DeviceMesh._concatenate  # asks values of tensors, which fake ones do not have

    def really(*args: Any, **names: Any) -> DeviceMesh:
        with unset_fake_temporarily():
            return joined(*args, **names)

    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=count)
    try:
        with patch.object(DeviceMesh, "_concatenate", staticmethod(really)):
            yield
    finally:
        dist.destroy_process_group()


class Live(TorchDispatchMode):
    """Bytes of the storages that live, now and at most, and collectives by kind ("tp", "dp")."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {}
        self.now = self.most = 0
        self.collectives: Counter[str] = Counter()
        self._resize = torch.UntypedStorage.resize_
        self._patch = patch.object(torch.UntypedStorage, "resize_", self._resized())

    def __enter__(self) -> "Live":
        self._patch.start()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patch.stop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # its local operations come here one by one
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.see(leaf.untyped_storage())
        name = func.name().partition("::")[2].partition(".")[0]
        if "c10d" in func.namespace and "wait" not in name:
            self.collectives["dp" if name in _SHARDED else "tp"] += 1
        return result

    def see(self, storage: torch.UntypedStorage) -> None:
        """Count a storage, while it lives, with the size that it has now."""
        key = storage._cdata
        if key not in self._sizes:
            weakref.finalize(storage, self._set, key, 0)
        self._set(key, storage.nbytes())

    def _set(self, key: int, size: int) -> None:
        self.now += size - self._sizes.pop(key, 0)
        self.most = max(self.most, self.now)
        if size:
            self._sizes[key] = size

    def _resized(self) -> Callable[..., torch.UntypedStorage]:
        """FSDP empties and fills the storages of its gathered weights."""

        def resize(storage: torch.UntypedStorage, size: int) -> torch.UntypedStorage:
            self._resize(storage, size)
            self.see(storage)
            return storage

        return resize


@dataclass(frozen=True)
class Passes:
    """Bytes of one micro-batch through one chunk: `kept` from its forward to its backward;
    `forward` and `backward` at most during each, beside `state`, which stays between micro-batches:
    gathered weights and gradients. Collectives of the first, a later and the last micro-batch.
    """

    state: int
    kept: int
    forward: int
    backward: int
    collectives: tuple[Counter[str], Counter[str], Counter[str]]

    def step_collectives(self, kind: str, microbatches: int) -> int:
        """Of one step."""
        first, later, last = (found[kind] for found in self.collectives)
        return first + (microbatches - 2) * later + last


def measure(live: Live, micro_batch: Callable[[bool], Iterator[None]]) -> Passes:
    """Run four micro-batches: one that gathers, one that adds gradients (DTensor tries each new
    operation on whole tensors, which must not count), one that is measured, one that exchanges.

    micro_batch(is_last) yields when its inputs are there, and again after the forward; the rest is
    the backward.
    """
    empty = live.now
    first, _ = _run(live, micro_batch(False)), _run(live, micro_batch(False))
    state = live.now - empty
    later, last = _run(live, micro_batch(False)), _run(live, micro_batch(True))
    collectives = first[-1], later[-1], last[-1]
    return Passes(state, *later[:3], collectives)


def _run(live: Live, micro_batch: Iterator[None]) -> tuple[int, int, int, Counter[str]]:
    """Bytes kept by the forward, most in the forward, most in the backward; collectives."""
    live.collectives = Counter()
    next(micro_batch)
    before, live.most = live.now, 0
    next(micro_batch)
    kept, forward, live.most = live.now - before, live.most - before, 0
    next(micro_batch, None)
    return kept, forward, live.most - before, live.collectives


def replayed(ops: Sequence[Op], passes: Mapping[int, Passes]) -> tuple[int, int]:
    """Where a rank runs `ops`: most bytes that forwards keep, and most at any moment."""
    live = kept = most = 0
    for is_forward, chunk, _ in ops:
        one = passes[chunk]
        most = max(most, live + (one.forward if is_forward else one.backward - one.kept))
        live += one.kept if is_forward else -one.kept
        kept = max(kept, live)
    return kept, most
