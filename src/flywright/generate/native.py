"""The C of this room (`*.c`), compiled once for this machine, by ctypes.

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
from contextlib import suppress
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
_LINEAR = (*[_POINTER] * 4, *[_COUNT] * 4, _POINTER, _COUNT)
_DECODE = (_POINTER, _POINTER, _COUNT, _POINTER, _COUNT, *[_POINTER] * 4, _COUNT)
_PEAKS = (_POINTER, _COUNT, ctypes.c_int64, _COUNT, _POINTER, _POINTER, _COUNT)
_DTYPES = {torch.float32: (), torch.bfloat16: ("-DBF16",)}

Function = Callable[..., int]
Tables = tuple[Tensor, Tensor]  # cosines and sines [..., T, R] in fp32, contiguous
Pointers = tuple[int, int]  # where a layer's pages of keys and of values begin
Where = tuple[Tensor, Tensor, Tensor]  # int32 table [rows, P], row [T], position [T]


class _Model(ctypes.Structure):
    """`Model` of decode.c."""

    _fields_ = [
        *((name, _POINTER) for name in ("embedding", "cosine", "sine", "layers")),
        *((name, _POINTER) for name in ("norm", "norm_bias")),
        ("head", _POINTER * 3),
        ("head_bias", _POINTER),
        *((name, _COUNT) for name in ("count", "size", "inner", "outputs")),
        ("eps", ctypes.c_float),
    ]


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
    """y = x W^T + b in bf16, of a weight [O, I] packed as decode.c reads it: `made` makes one.

    In int8 each output has a scale, and each row of x; their sums are exact.
    """

    def __init__(self, linear: Function, weight_OI: Tensor, bias_O: Tensor | None, int8: bool):
        self.outputs, self.inputs = weight_OI.shape
        self.bias, self.int8, self._linear = bias_O, int8, linear
        weight_OI = F.pad(weight_OI, (0, 0, 0, -self.outputs % _PANEL))
        self.matrix: list[Tensor | None] = [None, None, None]  # `Matrix` of decode.c
        if int8:
            scale_O = weight_OI.float().abs().amax(1).clamp_min(1e-12) / 127
            weight_OI = (weight_OI.float() / scale_O[:, None]).round().to(torch.int8)
            self.matrix[1:] = scale_O, weight_OI.sum(1).mul(-128).int()
        panels = weight_OI.unflatten(0, (-1, _PANEL)).unflatten(2, (-1, 4 if int8 else 2))
        self.matrix[0] = panels.transpose(1, 2).contiguous()
        self._told = (_POINTER * 3)(*pointers(self.matrix))

    def __call__(self, x_BI: Tensor, wide: bool = False) -> Tensor:
        """[..., I] -> [..., O] in bf16; `wide`: in fp32, not rounded."""
        x_BI, dtype = x_BI.contiguous(), torch.float32 if wide else torch.bfloat16
        y_BO = x_BI.new_empty(*x_BI.shape[:-1], self.outputs, dtype=dtype)
        rows = x_BI.numel() // self.inputs
        room = torch.empty(rows * (self.inputs + 4) if self.int8 else 0, dtype=torch.uint8)
        self._linear(
            x_BI.data_ptr(), self._told, *pointers([self.bias, y_BO]), rows, self.inputs,
            self.outputs, wide, room.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return y_BO

    @classmethod
    def made(cls, weight_OI: Tensor, bias_O: Tensor | None, int8: bool = False) -> "Product | None":
        """Of a weight in bf16 whose inputs make whole pairs (int8: sixteens); else, or where it
        cannot be, None."""
        if weight_OI.dtype != torch.bfloat16 or weight_OI.shape[1] % (16 if int8 else 2):
            return None
        linear = _function("linear", "decode.c", _LINEAR)
        return None if linear is None else cls(linear, weight_OI.detach(), bias_O, int8)


def pointers(tensors: Sequence[Tensor | None]) -> list[int]:
    """Where each begins; 0 for none."""
    return [0 if one is None else one.data_ptr() for one in tensors]


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
        layer = _layer(self.shape, tables, where, pages)
        return self._call(layer, qkv_1TE, tokens, starts, [width, channels] * 3)

    def __call__(
        self, q_1HTK: Tensor, k: Tensor, v: Tensor, pages: Pointers, where: Where
    ) -> Tensor:
        """out [1, H, T, K] of queries, keys and values [1, G, T, K] that are rotated already."""
        heads, _, channels = self.shape
        parts = [x if x.stride(-1) == 1 else x.contiguous() for x in (q_1HTK, k, v)]
        strides = [x.stride(axis) for x in parts for axis in (2, 1)]
        starts, tokens = [x.data_ptr() for x in parts], q_1HTK.shape[2]
        layer = _layer(self.shape, None, where, pages)
        out_1TE = self._call(layer, q_1HTK, tokens, starts, strides)
        return out_1TE.view(1, tokens, heads, channels).transpose(1, 2)

    def _call(
        self, layer: _Layer, like: Tensor, tokens: int, starts: Sequence[int], strides: list[int]
    ) -> Tensor:
        out_1TE = like.new_empty(1, tokens, self.shape[0] * self.shape[2])
        far = (ctypes.c_int64 * 6)(*strides)
        layer.q, layer.k, layer.v = starts
        layer.strides, layer.out = ctypes.addressof(far), out_1TE.data_ptr()
        self._attend(ctypes.byref(layer), tokens, torch.get_num_threads())
        return out_1TE


def _layer(
    shape: tuple[int, int, int], tables: Tables | None, where: Where, pages: Pointers = (0, 0)
) -> _Layer:
    turned = tables[0].shape[-1] if tables else 0
    angles = pointers(tables or (None, None))
    sizes = turned, where[0].shape[1], *shape
    return _Layer(0, 0, 0, 0, *angles, *pages, *pointers(where), *sizes, 0)


class Decoding:
    """A model over the tokens of a step, by one call: its body, and the head if it is a Product.

    layers: each one's tensors in the order of `Weights` of decode.c, and where its pages begin;
    tables: cosines and sines of all places.
    """

    def __init__(
        self, decode: Function, embedding_VD: Tensor,
        layers: Sequence[tuple[Sequence[Tensor | None], Pointers]], norm: Sequence[Tensor],
        head: Product | None, tables: Tables, shape: tuple[int, int, int], inner: int, eps: float,
    ):  # fmt: skip
        self._decode, self._shape, self.head, self._inner = decode, shape, head, inner
        rows = [[*pointers(tensors), *pages] for tensors, pages in layers]
        told = torch.tensor(rows, dtype=torch.int64)
        kept, last = (embedding_VD, *tables, told, *norm), head.matrix if head else []
        self._kept, self._size, self._room = (kept, layers), embedding_VD.shape[1], torch.empty(0)
        sizes = len(rows), self._size, inner, head.outputs if head else 0
        ends = (_POINTER * 3)(*pointers(last)), *pointers([head.bias if head else None])
        self._model = _Model(*pointers(kept), *ends, *sizes, eps)
        self._turned = tables[0].shape[-1]

    def __call__(self, ids_T: Tensor, wanted_M: Tensor, where: Where) -> Tensor:
        """The head's outputs [M, E] in fp32 of the wanted places, or their hidden states [M, D]."""
        rows, places, size = len(ids_T), len(wanted_M), self._size
        heads, groups, channels = self._shape
        each = 2 * size + 2 * (heads + groups) * channels + self._inner
        each += max(size, heads * channels, self._inner) // 2 + 2  # x in 8 bits, and its scales
        if self._room.numel() < rows * each:
            self._room = torch.empty(rows * each, dtype=torch.bfloat16)
        tables = torch.empty(2, rows, self._turned)
        y_MD = torch.empty(places, size, dtype=torch.bfloat16)
        outputs_ME = torch.empty(places, self.head.outputs if self.head else 0)
        step = _layer(self._shape, (tables[0], tables[1]), where)
        self._decode(
            ctypes.byref(self._model), ids_T.data_ptr(), rows, wanted_M.data_ptr(), places,
            ctypes.byref(step), self._room.data_ptr(), y_MD.data_ptr(), outputs_ME.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return outputs_ME if self.head else y_MD

    @classmethod
    def made(cls, embedding_VD: Tensor, *rest: Any) -> "Decoding | None":
        """Of a model in bf16 whose sizes are multiples of 16; None else, or where it cannot be."""
        if embedding_VD.dtype != torch.bfloat16 or embedding_VD.shape[1] % PAGE_TOKENS:
            return None
        decode = _function("decode", "decode.c", _DECODE)
        return None if decode is None else cls(decode, embedding_VD, *rest)


def peaks(logits_MV: Tensor) -> Tables:
    """The most likely column [M] of each row, the first of equals; and its logsumexp [M]."""
    found = _function("peaks", "peaks.c", _PEAKS)
    plain = logits_MV.is_cpu and logits_MV.dtype == torch.float32 and logits_MV.stride(-1) == 1
    if found is None or not plain:
        return logits_MV.argmax(-1), logits_MV.logsumexp(-1)
    (rows, width), threads = logits_MV.shape, torch.get_num_threads()
    made = torch.empty(rows, dtype=torch.int64), torch.empty(rows)
    found(logits_MV.data_ptr(), rows, logits_MV.stride(0), width, *pointers(made), threads)
    return made


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
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libgomp.so.1").omp_pause_resource_all(_HARD)
