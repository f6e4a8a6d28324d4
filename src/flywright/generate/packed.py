"""A model's linear layers as the processor reads them fastest, put on from outside.

oneDNN keeps a matrix reordered in blocks: for the few rows of a decoding step that is 2 to 5 times
as fast as torch's own product (benchmarks/engine.py), and a row's result has the same bits whatever
other rows there are, if there are at least LEAST_ROWS.

Shapes: B rows, I inputs, O outputs.
"""

import copy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flywright.model.norm import LayerNorm1P

LEAST_ROWS = 2  # one fp32 row alone goes another way, with another order of summation
_DTYPES = (torch.float32, torch.bfloat16)


class PackedLinear(nn.Module):
    """y = x W^T + b, of a weight that stays reordered."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None):
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach().contiguous(), 16)
        self._bias = None if bias_O is None else bias_O.detach()

    def forward(self, x_BI: Tensor) -> Tensor:
        """[..., I] -> [..., O], in the weight's dtype."""
        return torch.ops.mkldnn._linear_pointwise(x_BI, self._weight, self._bias, "none", [], "")


class Head(nn.Module):
    """A model's outputs, in the head's own dtype whatever the body's."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None):
        super().__init__()
        self._dtype = weight_OI.dtype
        plain = partial(F.linear, weight=weight_OI.detach(), bias=bias_O)
        self._product = PackedLinear(weight_OI, bias_O) if can_pack(weight_OI) else plain

    def forward(self, x_BI: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        return self._product(x_BI.to(self._dtype))


def can_pack(weight: Tensor) -> bool:
    """True for the dtypes that have such products, on a CPU that has oneDNN."""
    return weight.is_cpu and weight.dtype in _DTYPES and torch.backends.mkldnn.is_available()


def packed(model: nn.Module) -> nn.Module:
    """The model with packed linear layers; what is not packed is shared with the one given."""
    twin = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and can_pack(child.weight):
                setattr(parent, name, PackedLinear(child.weight, child.bias))
            elif isinstance(child, LayerNorm1P):
                setattr(parent, name, _plain(child))
    return twin


def _plain(norm: LayerNorm1P) -> nn.LayerNorm:
    """The same norm with one added to its weight once, not at each call."""
    plain = nn.LayerNorm(norm.weight.shape, norm.eps, device="meta")
    plain.weight = nn.Parameter(norm.weight.detach() + 1, requires_grad=False)
    plain.bias = norm.bias
    return plain
