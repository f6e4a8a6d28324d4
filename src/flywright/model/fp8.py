"""FP8 weights on disk (SPEC 12.1): the layers' matrices in float8_e4m3fn, each row with its scale.

The form is compressed-tensors' `float-quantized`, which vLLM multiplies as it is, with activations
scaled per token as they come; head, embeddings and norms stay as they were. Here such weights are
only stored: a model that is loaded from them computes in its own dtype.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flywright.errors import UserError

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max  # 448
KEY, SCALE = "quantization_config", "weight_scale"
_FLOAT8 = {"num_bits": 8, "type": "float", "symmetric": True}
_WEIGHTS = {**_FLOAT8, "strategy": "channel", "dynamic": False}
_ACTIVATIONS = {**_FLOAT8, "strategy": "token", "dynamic": True}
CONFIG: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {"targets": ["Linear"], "weights": _WEIGHTS, "input_activations": _ACTIVATIONS}
    },
    "ignore": ["lm_head"],
}


def quantised(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """The weight in FP8, and its rows' scales [O, 1] in fp32: a row's largest value is 448 of them.

    Each value is within 1/16 of itself, or 2^-10 of a scale. Raises UserError for NaN and Inf.
    """
    weight_OI = weight_OI.float()
    scale_O1 = weight_OI.abs().amax(1, keepdim=True) / LARGEST
    if not scale_O1.isfinite().all():
        raise UserError("a weight is NaN or Inf, or too large: FP8 cannot hold it")
    scale_O1 = scale_O1.clamp(min=torch.finfo(torch.float32).tiny)  # of a row of zeros, any will do
    return (weight_OI / scale_O1).clamp(-LARGEST, LARGEST).to(FP8), scale_O1


def quantised_layers(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """A model's tensors by name, the layers' matrices as FP8 followed by their scales."""
    for name, tensor in tensors:
        if name.endswith("_proj.weight"):
            tensor, scale_O1 = quantised(tensor)
            yield name.replace(".weight", f".{SCALE}"), scale_O1
        yield name, tensor


class Dequantised(Mapping[str, Tensor]):
    """Tensors as `dtype` has them: what is stored in FP8 times its scale, when it is asked for.

    `stored` holds no scales, `scales` one for each FP8 weight, by its name.
    """

    def __init__(self, stored: Mapping[str, Tensor], scales: Mapping[str, Tensor], dtype: Any):
        self._stored, self._scales, self._dtype = stored, scales, dtype

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._scales:
            return self._stored[name]
        return (self._stored[name].float() * self._scales[name].float()).to(self._dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def scales_of(
    tensors: dict[str, Tensor], config: dict[str, Any], folder: Path
) -> dict[str, Tensor]:
    """Take the scales out of a folder's tensors: weight's name -> [O, 1], or one number.

    Also of `fp8` with one scale a tensor; the scale of activations that is stored beside one is
    left out. Raises UserError for any other quantisation, and for FP8 without its scale.
    """
    said = config.get(KEY)
    if said is not None and not _is_read(said):
        raise UserError(
            f"{folder}: quantised in a form that is not read here, only FP8 weights with a scale "
            "a row or a tensor; take the folder that it was made from"
        )
    scales = {}
    for name in [name for name, tensor in tensors.items() if tensor.dtype == FP8]:
        owner = name.removesuffix("weight")
        scale = tensors.pop(f"{owner}{SCALE}", None)
        rows = tensors[name].shape[0]
        if scale is None or scale.numel() not in (1, rows):
            raise UserError(f"{folder}: FP8 tensor {name!r} has no {SCALE} of its {rows} rows")
        tensors.pop(f"{owner}input_scale", None)
        scales[name] = scale.reshape(-1, 1)
    return scales


def _is_read(said: Any) -> bool:
    try:
        if said["quant_method"] == "fp8":
            return said.get("weight_block_size") is None
        forms = [group["weights"] for group in said["config_groups"].values()]
        return said["quant_method"] == "compressed-tensors" and all(
            (form["type"], form["num_bits"]) == ("float", 8)
            and form["strategy"] in ("channel", "tensor")
            for form in forms
        )
    except (KeyError, TypeError, AttributeError):  # it says something else, or nothing
        return False
