"""The C of this room (`attention.c`, `decode.c`), compiled once for this machine, by ctypes.

Where there is no compiler, or the processor lacks what they need, there is None, and torch's
operations take their place: `cache.gathered`, packed products and a body's modules, the slow
twins. They share torch's OpenMP threads. A library lies in the user's cache, named after its
source, the flags and the processor.
"""

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flywright.files import digest

PAGE_TOKENS = 16  # PAGE of attention.c: one vector of floats
_MOST_QUERIES, _MOST_CHANNELS = 16, 512
_FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fopenmp", "-shared", "-fPIC")
_HARD = 2  # omp_pause_hard
_PANEL = 32  # of decode.c
_POINTER, _COUNT = ctypes.c_void_p, ctypes.c_int
_LINEAR = (*[_POINTER] * 4, *[_COUNT] * 5)
_DECODE = (*[_POINTER] * 2, *[_COUNT] * 4, ctypes.c_float, *[_POINTER] * 2, _COUNT)
_DTYPES = {torch.float32: (), torch.bfloat16: ("-DBF16",)}

Function = Callable[..., int]
Tables = tuple[Tensor, Tensor]  # cosines and sines [..., T, R] in fp32, contiguous
Pointers = tuple[int, int]  # where a layer's pages of keys and of values begin
Where = tuple[Tensor, Tensor, Tensor]  # int32 table [rows, P], row [T], position [T]


class _Layer(ctypes.Structure):
    """`Layer` of attention.c: a step's new tokens in one layer."""

    _fields_ = [
        *((name, _POINTER) for name in ("q", "k", "v", "strides", "cosine", "sine")),
        *((name, _POINTER) for name in ("k_pages", "v_pages", "table", "row", "position")),
        *((name, _COUNT) for name in ("turned", "width", "heads", "groups", "channels")),
        ("out", _POINTER),
    ]


def _processor() -> str:
    """What -march=native depends on: a home may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"


# where a processor multiplies whole tiles, oneDNN is faster for more rows; 0: it never is
MOST_ROWS = 16 if "amx_bf16" in _processor() else 0


def compiled(dtype: torch.dtype, heads: int, groups: int, channels: int) -> "Compiled | None":
    """The compiled attention for these shapes, or None where torch has to do it."""
    fits = heads // groups <= _MOST_QUERIES and channels % PAGE_TOKENS == 0
    if not fits or channels > _MOST_CHANNELS or dtype not in _DTYPES:
        return None
    attend = _function("attend", "attention.c", (_POINTER, _COUNT, _COUNT), *_DTYPES[dtype])
    return None if attend is None else Compiled(attend, heads, groups, channels)


class Product:
    """y = x W^T + b in bf16, of a weight [O, I] packed as decode.c reads it: `made` makes one."""

    def __init__(self, linear: Function, weight_OI: Tensor, bias_O: Tensor | None):
        self.outputs, self.inputs = weight_OI.shape
        padded_OI = F.pad(weight_OI, (0, 0, 0, -self.outputs % _PANEL))
        panels = padded_OI.unflatten(0, (-1, _PANEL)).unflatten(2, (-1, 2))
        self.weight, self.bias = panels.transpose(1, 2).contiguous(), bias_O
        self._linear = linear
        self._fixed = self.weight.data_ptr(), 0 if bias_O is None else bias_O.data_ptr()

    def __call__(self, x_BI: Tensor, wide: bool = False) -> Tensor:
        """[..., I] -> [..., O] in bf16; `wide`: in fp32, not rounded."""
        x_BI, dtype = x_BI.contiguous(), torch.float32 if wide else torch.bfloat16
        y_BO = x_BI.new_empty(*x_BI.shape[:-1], self.outputs, dtype=dtype)
        sizes = x_BI.numel() // self.inputs, self.inputs, self.outputs
        threads = torch.get_num_threads()
        self._linear(x_BI.data_ptr(), *self._fixed, y_BO.data_ptr(), *sizes, wide, threads)
        return y_BO

    @classmethod
    def made(cls, weight_OI: Tensor, bias_O: Tensor | None) -> "Product | None":
        """Of a weight in bf16 with an even number of inputs; else, or where it cannot be, None."""
        if weight_OI.dtype != torch.bfloat16 or weight_OI.shape[1] % 2:
            return None
        linear = _function("linear", "decode.c", _LINEAR)
        return None if linear is None else cls(linear, weight_OI.detach(), bias_O)


class Compiled:
    """Rotates, stores and attends: a layer of a step, by one call.

    Shapes: T tokens, H heads, G groups, K channels, R of them rotated, P pages of a row.
    """

    def __init__(self, attend: Function, heads: int, groups: int, channels: int):
        self._attend = attend
        self.shape = heads, groups, channels

    def packed(self, qkv_1TE: Tensor, tables: Tables, pages: Pointers, where: Where) -> Tensor:
        """out [1, T, H * K] of queries, keys and values that lie side by side, not yet rotated."""
        heads, groups, channels = self.shape
        tokens, width = qkv_1TE.shape[1:]
        first, wide = qkv_1TE.data_ptr(), channels * qkv_1TE.element_size()
        starts = first, first + heads * wide, first + (heads + groups) * wide
        return self._call(starts, [width, channels] * 3, tables, pages, where, tokens, qkv_1TE)

    def __call__(
        self, q_1HTK: Tensor, k: Tensor, v: Tensor, pages: Pointers, where: Where
    ) -> Tensor:
        """out [1, H, T, K] of queries, keys and values [1, G, T, K] that are rotated already."""
        heads, _, channels = self.shape
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
        out_1TE = like.new_empty(1, tokens, self.shape[0] * self.shape[2])
        far = (ctypes.c_int64 * 6)(*strides)
        q, k, v = starts
        k_pages, v_pages = pages
        layer = _layer(
            self.shape, tables, where, q=q, k=k, v=v, strides=ctypes.addressof(far),
            k_pages=k_pages, v_pages=v_pages, out=out_1TE.data_ptr(),
        )  # fmt: skip
        self._attend(ctypes.byref(layer), tokens, torch.get_num_threads())
        return out_1TE


def _layer(
    shape: tuple[int, int, int], tables: Tables | None, where: Where, **pointers: int
) -> _Layer:
    heads, groups, channels = shape
    table, row, position = where
    turned = 0
    if tables is not None:
        turned = tables[0].shape[-1]
        pointers |= {"cosine": tables[0].data_ptr(), "sine": tables[1].data_ptr()}
    return _Layer(
        table=table.data_ptr(), row=row.data_ptr(), position=position.data_ptr(), turned=turned,
        width=table.shape[1], heads=heads, groups=groups, channels=channels, **pointers,
    )  # fmt: skip


class Decoding:
    """All layers of a body over the tokens of a step, by one call.

    layers: each one's tensors in the order of `Weights` of decode.c, and where its pages begin.
    """

    def __init__(
        self,
        decode: Function,
        layers: Sequence[tuple[Sequence[Tensor], Pointers]],
        shape: tuple[int, int, int],
        inner: int,
        eps: float,
    ):
        self._decode, self._shape, self._inner, self._eps = decode, shape, inner, eps
        self._kept = [tensors for tensors, _ in layers]
        rows = [[*(one.data_ptr() for one in tensors), *pages] for tensors, pages in layers]
        self._layers, self._room = torch.tensor(rows, dtype=torch.int64), torch.empty(0)

    def __call__(self, x_TD: Tensor, tables: Tables, where: Where) -> None:
        """The stream through the layers, in place."""
        step, (rows, size) = _layer(self._shape, tables, where), x_TD.shape
        heads, groups, channels = self._shape
        each = size + 2 * (heads + groups) * channels + self._inner
        if self._room.numel() < rows * each:
            self._room = x_TD.new_empty(rows * each)
        self._decode(
            x_TD.data_ptr(), self._layers.data_ptr(), len(self._layers), rows, size, self._inner,
            self._eps, ctypes.byref(step), self._room.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip


def decoding(
    layers: Sequence[tuple[Sequence[Tensor], Pointers]],
    shape: tuple[int, int, int],
    inner: int,
    eps: float,
) -> Decoding | None:
    """The compiled layers, or None where they cannot be: in bf16, sizes multiples of 16."""
    sizes = len(layers[0][0][0]), inner
    if any(size % PAGE_TOKENS for size in sizes) or layers[0][0][0].dtype != torch.bfloat16:
        return None
    decode = _function("decode", "decode.c", _DECODE)
    return None if decode is None else Decoding(decode, layers, shape, inner, eps)


@cache
def _function(name: str, source: str, arguments: tuple[Any, ...], *defined: str) -> Function | None:
    """A function of a source; None where it cannot be made. FLYWRIGHT_NATIVE=0 asks for none."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or os.environ.get("FLYWRIGHT_NATIVE") == "0":
        return None
    path, flags = Path(__file__).with_name(source), (*_FLAGS, *defined)
    text = "".join(each.read_text() for each in sorted(path.parent.glob("*.c")))
    made = f"{path.stem}-{digest(text, *flags, _processor(), length=16)}.so"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flywright"
    try:
        library = home / made
        if not library.exists():
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=home) as folder:
                new = Path(folder) / made
                command = [compiler, *flags, str(path), "-o", str(new), "-lm"]
                subprocess.run(command, check=True, capture_output=True, timeout=120)
                new.replace(library)
        function = getattr(ctypes.CDLL(str(library)), name)
    except (OSError, subprocess.SubprocessError):
        return None
    function.argtypes = arguments
    return function


def release_threads() -> None:
    """End the OpenMP threads that the calling thread has had work for it.

    libgomp lets threads wait less eagerly as soon as all callers' together outnumber the cores:
    then each small operation of the thread that computes would take twice as long.
    """
    if (pause := _pause()) is not None:
        pause(_HARD)


@cache
def _pause() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL("libgomp.so.1").omp_pause_resource_all
    except (OSError, AttributeError):
        return None
