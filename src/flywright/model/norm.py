"""LayerNorm1P: layer norm whose stored weight is zero-centred and applied as weight + 1."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm1P(nn.Module):
    """Layer norm over the last axis with bias (SPEC 1.1); never weight-decayed."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(size))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Normalised x, same shape and dtype."""
        return F.layer_norm(x_BTD, self.weight.shape, self.weight + 1, self.bias, self.eps)
