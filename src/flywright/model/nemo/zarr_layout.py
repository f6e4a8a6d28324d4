"""Tensors of a zarr checkpoint: for each a folder with .zarray and a file a chunk (SPEC 12.2).

The published Nemotron-4 340B is one. Its bfloat16 is a dtype that zarr itself does not know, so
the chunks (zarr's format 2) are read here.
"""

import itertools
import json
from functools import partial
from math import prod

import torch
from torch import Tensor

from flywright.errors import UserError
from flywright.model.nemo.archive import Archive
from flywright.model.nemo.stored import Piece, StoredTensor

_DTYPES = {"bfloat16": torch.bfloat16, "<f2": torch.float16, "<f4": torch.float32}


def zarr_tensors(archive: Archive, folder: str) -> dict[str, StoredTensor]:
    """The model's tensors below `folder`. Raises UserError for an encoding that is not known."""
    end = "/.zarray"
    paths = sorted(n.removesuffix(end) for n in archive.names if n.startswith(folder + "model."))
    found = [path for path in paths if f"{path}{end}" in archive.names]
    return {path.removeprefix(folder): _tensor(archive, path) for path in found}


def _tensor(archive: Archive, path: str) -> StoredTensor:
    where = f"{archive.where}: {path}"
    try:
        header = json.loads(archive.read(f"{path}/.zarray"))
        shape, sizes = tuple(header["shape"]), tuple(header["chunks"])
        grid = [range(-(-whole // size)) for whole, size in zip(shape, sizes, strict=True)]
    except (ValueError, KeyError, TypeError, ZeroDivisionError):
        raise UserError(f"{where}/.zarray: not a zarr header") from None
    for key, value, known in (
        ("dtype", header.get("dtype"), list(_DTYPES)),
        ("order", header.get("order"), ["C"]),
        ("compressor", header.get("compressor"), [None]),  # Megatron-core writes none
        ("filters", header.get("filters"), [None, []]),
    ):
        if value not in known:
            raise UserError(f"{where}/.zarray: {key} {value!r} is not read, only {known}")
    dtype, separator = _DTYPES[header["dtype"]], header.get("dimension_separator", ".")
    pieces = []
    for place in itertools.product(*grid):
        file = f"{path}/{separator.join(map(str, place))}"
        offsets = tuple(at * size for at, size in zip(place, sizes, strict=True))
        load = partial(_chunk, archive, file, sizes, dtype)
        pieces.append(Piece(offsets, sizes, load))
    return StoredTensor(where, shape, dtype, pieces)


def _chunk(archive: Archive, file: str, sizes: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A chunk; zarr stores those at the edges in full size too."""
    data, size = archive.read(file), prod(sizes) * dtype.itemsize
    if len(data) != size:
        raise UserError(f"{archive.where}: {file}: {len(data)} bytes, expected {size}")
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(sizes)
