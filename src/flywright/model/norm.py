"""Norms of the stream: Nemotron's LayerNorm1P, and RMSNorm for the other families."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flywright.spec import ModelSpec


class LayerNorm1P(nn.Module):
    """Layer norm over the last axis with bias (SPEC 1.1); never weight-decayed.

    The stored weight is zero-centred and applied as weight + 1.
    """

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(size))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.layer_norm(x_BTD, self.weight.shape, self.weight + 1, self.bias, self.eps)


class RMSNorm(nn.Module):
    """x over its root mean square, times the weight; no bias."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.rms_norm(x_BTD, self.weight.shape, self.weight, self.eps)


def stream_norm(spec: ModelSpec) -> nn.Module:
    kind = RMSNorm if spec.norm == "rmsnorm" else LayerNorm1P
    return kind(spec.hidden_size, spec.norm_eps)
