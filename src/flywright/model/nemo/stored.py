"""A tensor as a checkpoint stores it: pieces of a whole, each read when it is asked for."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flywright.errors import UserError


@dataclass(frozen=True)
class Piece:
    """A block of a tensor: where it starts, how large it is, and how to read it."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    load: Callable[[], Tensor]


@dataclass(frozen=True)
class StoredTensor:
    """Whole shape, and pieces that cover it once (zarr's may reach past its end).

    `where` names the archive and the tensor in errors.
    """

    where: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    pieces: list[Piece]

    def read(self, index: int | None = None) -> Tensor:
        """The whole tensor, or the part at `index` of axis 0; no more than that in memory.

        Raises UserError where pieces are missing or not of the shape that was stated.
        """
        low, high = [0] * len(self.shape), list(self.shape)
        if index is not None:
            low[0], high[0] = index, index + 1
        whole = torch.empty([b - a for a, b in zip(low, high, strict=True)], dtype=self.dtype)
        filled = 0
        for piece in self.pieces:
            ends = (a + size for a, size in zip(piece.offsets, piece.sizes, strict=True))
            start = [max(pair) for pair in zip(piece.offsets, low, strict=True)]
            stop = [min(pair) for pair in zip(ends, high, strict=True)]
            if any(a >= b for a, b in zip(start, stop, strict=True)):
                continue
            part = piece.load()
            if part.shape != piece.sizes or part.dtype != self.dtype:
                found = f"{part.dtype} {list(part.shape)}"
                raise UserError(f"{self.where}: a piece is {found}, not as its header says")
            whole[_box(start, stop, low)] = part[_box(start, stop, piece.offsets)]
            filled += math.prod(b - a for a, b in zip(start, stop, strict=True))
        if filled != whole.numel():
            raise UserError(f"{self.where}: its pieces do not make up {list(self.shape)}")
        return whole if index is None else whole[0]


def _box(start: list[int], stop: list[int], origin: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(a - o, b - o) for a, b, o in zip(start, stop, origin, strict=True))
