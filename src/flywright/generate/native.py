"""The C of this room (`attention.c`), compiled once for this machine and opened with ctypes.

Where there is no compiler, `attend_paged` is None and torch's operations take its place
(`cache.gathered`, its slow twin). It shares torch's OpenMP threads. The library lies in the user's
cache, named after its source, the flags and the processor.
"""

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
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

Attended = Callable[..., Tensor]


def attend_paged(dtype: torch.dtype, heads: int, groups: int, channels: int) -> Attended | None:
    """The compiled attention for these shapes, or None where torch has to do it.

    Called with q_BHTK, k_BGTK, v_BGTK of one row B = 1, a layer's pages of keys and of values, and
    int32 table_RP, row_T, position_T; returns out_BHTK and has stored k and v.
    """
    fits = heads // groups <= _MOST_QUERIES and channels % PAGE_TOKENS == 0
    library = _library(dtype) if fits and channels <= _MOST_CHANNELS else None
    if library is None:
        return None

    def attend(
        q: Tensor, k: Tensor, v: Tensor, pages_k: Tensor, pages_v: Tensor,
        table: Tensor, row: Tensor, position: Tensor,
    ) -> Tensor:  # fmt: skip
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        tokens = q.shape[2]
        strides = [x.stride(axis) for x in (q, k, v) for axis in (2, 1)]
        out_TE = torch.empty(tokens, heads * channels, dtype=dtype)
        library.attend(
            q.data_ptr(), k.data_ptr(), v.data_ptr(), (ctypes.c_int64 * 6)(*strides),
            pages_k.data_ptr(), pages_v.data_ptr(), table.data_ptr(), table.shape[1],
            row.data_ptr(), position.data_ptr(), tokens, heads, groups, channels,
            out_TE.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return out_TE.view(1, tokens, heads, channels).transpose(1, 2)

    return attend


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
        *[pointer] * 7, count, *[pointer] * 2, *[count] * 4, pointer, count,
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
