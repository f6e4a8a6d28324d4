"""Rotary positions on the first part of each head (SPEC 1.3): rotate-half, not interleaved pairs.

Shapes: B batch, T positions, H heads, K head dimension, R rotated channels.
"""

import torch
from torch import Tensor


def rotary_tables(positions_BT: Tensor, rotary_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """cos and sin [B, 1, T, R] in fp32, for `rotate`."""
    channels = torch.arange(0, rotary_dim, 2, device=positions_BT.device, dtype=torch.float32)
    inverse_frequency = base ** (-channels / rotary_dim)
    angles = positions_BT[:, None, :, None].float() * inverse_frequency
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x_BHTK: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """x with its first R channels rotated by the position's angle; the rest passes through."""
    cos, sin = (table.to(x_BHTK.dtype) for table in tables)
    size = cos.shape[-1]
    turned, rest = x_BHTK[..., :size], x_BHTK[..., size:]
    first, second = turned.chunk(2, dim=-1)
    half = torch.cat((-second, first), dim=-1)
    return torch.cat((turned * cos + half * sin, rest), dim=-1)
