"""The C of this room (`attention.c`), compiled once for this machine and opened with ctypes.

Where there is no compiler, `compiled` gives None and torch's operations take its place
(`cache.gathered`, its slow twin). It shares torch's OpenMP threads. The library lies in the user's
cache, named after its source, the flags and the processor.
"""

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from flywright.files import digest

PAGE_TOKENS = 16  # PAGE of attention.c: one vector of floats
_MOST_QUERIES, _MOST_CHANNELS = 16, 512
_SOURCE = Path(__file__).with_name("attention.c")
_FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fopenmp", "-shared", "-fPIC")
_DTYPES = {torch.float32: (), torch.bfloat16: ("-DBF16",)}

Tables = tuple[Tensor, Tensor]  # cosines and sines [..., T, R] in fp32, contiguous
Pointers = tuple[int, int]  # where a layer's pages of keys and of values begin
Where = tuple[Tensor, Tensor, Tensor]  # int32 table [rows, P], row [T], position [T]


def compiled(dtype: torch.dtype, heads: int, groups: int, channels: int) -> "Compiled | None":
    """The compiled attention for these shapes, or None where torch has to do it."""
    fits = heads // groups <= _MOST_QUERIES and channels % PAGE_TOKENS == 0
    library = _library(dtype) if fits and channels <= _MOST_CHANNELS else None
    return None if library is None else Compiled(library, heads, groups, channels)


class Compiled:
    """Rotates, stores and attends: a layer of a step, by one call.

    Shapes: T tokens, H heads, G groups, K channels, R of them rotated, P pages of a row.
    """

    def __init__(self, library: ctypes.CDLL, heads: int, groups: int, channels: int):
        self._attend = library.attend
        self._shape = heads, groups, channels

    def packed(self, qkv_1TE: Tensor, tables: Tables, pages: Pointers, where: Where) -> Tensor:
        """out [1, T, H * K] of queries, keys and values that lie side by side, not yet rotated."""
        heads, groups, channels = self._shape
        tokens, width = qkv_1TE.shape[1:]
        first, wide = qkv_1TE.data_ptr(), channels * qkv_1TE.element_size()
        starts = first, first + heads * wide, first + (heads + groups) * wide
        return self._call(starts, [width, channels] * 3, tables, pages, where, tokens, qkv_1TE)

    def __call__(
        self, q_1HTK: Tensor, k: Tensor, v: Tensor, pages: Pointers, where: Where
    ) -> Tensor:
        """out [1, H, T, K] of queries, keys and values [1, G, T, K] that are rotated already."""
        heads, _, channels = self._shape
        parts = [x if x.stride(-1) == 1 else x.contiguous() for x in (q_1HTK, k, v)]
        strides = [x.stride(axis) for x in parts for axis in (2, 1)]
        starts, tokens = [x.data_ptr() for x in parts], q_1HTK.shape[2]
        out_1TE = self._call(starts, strides, None, pages, where, tokens, q_1HTK)
        return out_1TE.view(1, tokens, heads, channels).transpose(1, 2)

    def _call(
        self,
        starts: Sequence[int],
        strides: list[int],
        tables: Tables | None,
        pages: Pointers,
        where: Where,
        tokens: int,
        like: Tensor,
    ) -> Tensor:
        heads, groups, channels = self._shape
        table, row, position = where
        cosine, sine = (0, 0) if tables is None else (one.data_ptr() for one in tables)
        turned = 0 if tables is None else tables[0].shape[-1]
        out_1TE = like.new_empty(1, tokens, heads * channels)
        self._attend(
            *starts, (ctypes.c_int64 * 6)(*strides), cosine, sine, turned, *pages,
            table.data_ptr(), table.shape[1], row.data_ptr(), position.data_ptr(), tokens,
            heads, groups, channels, out_1TE.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return out_1TE


@cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The library for a dtype; None where it cannot be made. FLYWRIGHT_NATIVE=0 asks for none."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or dtype not in _DTYPES or os.environ.get("FLYWRIGHT_NATIVE") == "0":
        return None
    flags = (*_FLAGS, *_DTYPES[dtype])
    name = f"attention-{digest(_SOURCE.read_text(), *flags, _processor(), length=16)}.so"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flywright"
    try:
        library = home / name
        if not library.exists():
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=home) as folder:
                made = Path(folder) / name
                command = [compiler, *flags, str(_SOURCE), "-o", str(made), "-lm"]
                subprocess.run(command, check=True, capture_output=True, timeout=120)
                made.replace(library)
        loaded = ctypes.CDLL(str(library))
    except (OSError, subprocess.SubprocessError):
        return None
    pointer, count = ctypes.c_void_p, ctypes.c_int
    loaded.attend.argtypes = [
        *[pointer] * 6, count, *[pointer] * 3, count, *[pointer] * 2, *[count] * 4, pointer, count,
    ]  # fmt: skip
    loaded.attend.restype = None
    return loaded


def _processor() -> str:
    """What -march=native depends on: a home may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"
