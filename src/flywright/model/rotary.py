"""Rotary positions on the first part of each head (SPEC 1.3): rotate-half, not interleaved pairs.

Shapes: B batch, T positions, H heads, K head dimension, R rotated channels.
"""

import math

import torch
from torch import Tensor

from flywright.spec import ModelSpec, RotaryScaling


def rotary_tables(positions_BT: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor]:
    """cos and sin [B, 1, T, R] in fp32, for `rotate`."""
    channels = torch.arange(0, spec.rotary_dim, 2, device=positions_BT.device, dtype=torch.float32)
    frequency_F = 1.0 / spec.rotary_base ** (channels / spec.rotary_dim)
    sharpness = 1.0
    if spec.rotary_scaling is not None:
        frequency_F, sharpness = _stretched(frequency_F, spec, spec.rotary_scaling)
    angles = positions_BT[:, None, :, None].float() * frequency_F
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos() * sharpness, angles.sin() * sharpness


def _stretched(
    frequency_F: Tensor, spec: ModelSpec, scaling: RotaryScaling
) -> tuple[Tensor, float]:
    """Frequencies for a longer context, and the factor on cos and sin."""
    slow_F, sharpness = frequency_F / scaling.factor, 1.0
    if scaling.kind == "linear":
        return slow_F, sharpness
    if scaling.kind == "llama3":
        turns_F = scaling.original_context * frequency_F / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        kept_F = ((turns_F - low) / (high - low)).clamp(0, 1)
    else:
        kept_F = 1 - _ramp(frequency_F, spec, scaling)
        sharpness = scaling.attention_factor or 0.1 * math.log(max(scaling.factor, 1)) + 1
    return slow_F + (frequency_F - slow_F) * kept_F, sharpness


def _ramp(frequency_F: Tensor, spec: ModelSpec, scaling: RotaryScaling) -> Tensor:
    """0 for channels that turn often within the original context, 1 for those that hardly do."""

    def channel(turns: float) -> float:
        wavelength = scaling.original_context / (turns * 2 * math.pi)
        return spec.rotary_dim * math.log(wavelength) / (2 * math.log(spec.rotary_base))

    first = max(math.floor(channel(scaling.beta_fast)), 0)
    last = min(math.ceil(channel(scaling.beta_slow)), spec.rotary_dim - 1)
    place_F = torch.arange(frequency_F.shape[0], device=frequency_F.device, dtype=torch.float32)
    return ((place_F - first) / max(last - first, 1e-3)).clamp(0, 1)


def rotate(x_BHTK: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """x with its first R channels rotated by the position's angle; the rest passes through."""
    cos, sin = (table.to(x_BHTK.dtype) for table in tables)
    size = cos.shape[-1]
    turned, rest = x_BHTK[..., :size], x_BHTK[..., size:]
    first, second = turned.chunk(2, dim=-1)
    half = torch.cat((-second, first), dim=-1)
    return torch.cat((turned * cos + half * sin, rest), dim=-1)
