"""A model's linear layers as the processor reads them fastest, put on from outside.

In bf16, where the processor multiplies pairs of it, by our own products (decode.c); else oneDNN
keeps a matrix reordered in blocks: both are faster than torch's own for the rows of a decoding step
(benchmarks/engine.py). In fp32 a row's result has the same bits whatever other rows there are, if
there are at least LEAST_ROWS.

Shapes: B rows, I inputs, O outputs.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flywright.errors import UserError
from flywright.generate.cache import Paged, PagedCache
from flywright.generate.native import MOST_ROWS, Decoding, Product
from flywright.model.attention import Attend, Attention
from flywright.model.decoder import Body
from flywright.model.mlp import Mlp
from flywright.model.norm import LayerNorm1P
from flywright.model.rotary import rotary_tables, rotate

LEAST_ROWS = 2  # one fp32 row alone goes another way, with another order of summation
_DTYPES = (torch.float32, torch.bfloat16)
AnyModule = TypeVar("AnyModule", bound=nn.Module)


class PackedLinear(nn.Module):
    """y = x W^T + b, of a weight that stays reordered: by our own product where it is faster.

    `int8`: half the bytes of bf16 (benchmarks/engine.py says how much that is worth). Raises
    UserError where there is no such product.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None, int8: bool = False):
        super().__init__()
        self.bias = None if bias_O is None else bias_O.detach()
        weight_OI = weight_OI.detach()
        self.own, self._theirs = Product.made(weight_OI, self.bias, int8), None
        if int8 and self.own is None:
            raise UserError("int8 weights: of a model in bf16, on a CPU that has AVX512-BF16")
        if self.own is None or (MOST_ROWS and not int8):
            weight_OI = weight_OI.contiguous()
            self._theirs = torch.ops.mkldnn._reorder_linear_weight(weight_OI, 16)

    def forward(self, x_BI: Tensor, wide: bool = False) -> Tensor:
        """[..., I] -> [..., O], in the weight's dtype; `wide`: perhaps in fp32, not rounded."""
        rows = x_BI.numel() // x_BI.shape[-1]
        if self.own and (self._theirs is None or rows <= MOST_ROWS):
            return self.own(x_BI, wide)
        return torch.ops.mkldnn._linear_pointwise(x_BI, self._theirs, self.bias, "none", [], "")


class PackedAttention(nn.Module):
    """`Attention` with one product for queries, keys and values, which the cache rotates itself."""

    def __init__(self, plain: Attention, linear: Callable[..., nn.Module]):
        super().__init__()
        parts = plain.q_proj, plain.k_proj, plain.v_proj
        biases: list[Tensor] = [one.bias for one in parts if one.bias is not None]
        self._sizes = [len(one.weight) for one in parts]
        self._head_dim = plain.head_dim
        weight = torch.cat([one.weight for one in parts])
        self.qkv = linear(weight, torch.cat(biases) if biases else None)
        self.o_proj = linear(plain.o_proj.weight)
        self._norms = plain.q_norm, plain.k_norm
        self.normed = not isinstance(plain.q_norm, nn.Identity)

    def forward(
        self, x_1TD: Tensor, tables: tuple[Tensor, Tensor], layer: int, attend: Attend
    ) -> Tensor:
        """Attention output, [1, T, D]."""
        qkv_1TE = self.qkv(x_1TD)
        if isinstance(attend, Paged) and not self.normed:
            return self.o_proj(attend.packed(layer, qkv_1TE, tables))
        parts = qkv_1TE.split(self._sizes, -1)
        heads = [part.unflatten(-1, (-1, self._head_dim)).transpose(1, 2) for part in parts]
        q_1HTK, k_1GTK = (
            rotate(norm(part), tables) for norm, part in zip(self._norms, heads, strict=False)
        )
        return self.o_proj(attend(layer, q_1HTK, k_1GTK, heads[2]).transpose(1, 2).flatten(-2))


class Head(nn.Module):
    """A model's outputs, by the head's own dtype whatever the body's."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None):
        super().__init__()
        self._dtype, self.own = weight_OI.dtype, None
        self._product = partial(F.linear, weight=weight_OI.detach(), bias=bias_O)
        if can_pack(weight_OI):
            linear = PackedLinear(weight_OI, bias_O)
            self._product, self.own = partial(linear, wide=True), linear.own

    def forward(self, x_BI: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        return self._product(x_BI.to(self._dtype))


def one_call(body: Body, head: nn.Module | None, cache: PagedCache) -> Decoding | None:
    """A packed model by one call, or None: for layers as Nemotron has them, in bf16."""
    layers = [_weights(layer) for layer in body.layers]
    placed = [(each, at) for each, at in zip(layers, cache.pointers, strict=False) if each]
    if cache.native is None or not layers or len(placed) < len(layers):
        return None
    tables = rotary_tables(torch.arange(cache.context_length)[None], body.spec)
    first: Any = body.layers[0]
    own, inner = getattr(head, "own", None), first.mlp.up_proj.own.outputs
    norm, shape = (body.norm.weight, body.norm.bias), cache.native.shape
    parts = body.embed_tokens.weight, placed, norm, own, tables
    return Decoding.made(*parts, shape, inner, body.spec.norm_eps)


def _weights(layer: nn.Module) -> list[Tensor | None] | None:
    """A layer's tensors as `decode.c` takes them, or None if it is not as Nemotron's."""
    attention, mlp = layer.self_attn, layer.mlp
    first, second = layer.input_layernorm, layer.post_attention_layernorm
    if not isinstance(attention, PackedAttention) or not isinstance(mlp, Mlp) or mlp.is_gated:
        return None
    linears = [attention.qkv, attention.o_proj, mlp.up_proj, mlp.down_proj]
    owns = [p.own for p in linears if isinstance(p, PackedLinear) and p.bias is None]
    matrices = [own.matrix for own in owns if own]
    if attention.normed or len(matrices) < len(linears) or not isinstance(first, nn.LayerNorm):
        return None
    assert isinstance(second, nn.LayerNorm)
    norms = first.weight, first.bias, second.weight, second.bias
    return [*norms, *(part for matrix in matrices for part in matrix)]


def can_pack(weight: Tensor) -> bool:
    """True for the dtypes that have such products, on a CPU that has oneDNN."""
    return weight.is_cpu and weight.dtype in _DTYPES and torch.backends.mkldnn.is_available()


def packed(model: AnyModule, int8: bool = False) -> AnyModule:
    """The model with packed linear layers; what is not packed is shared with the one given.

    Raises UserError where there are no int8 products for it.
    """
    if int8 and not can_pack(next(model.parameters())):
        raise UserError("int8 weights: on a CPU")
    twin = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    _pack_within(twin, partial(PackedLinear, int8=int8))
    return twin


def _pack_within(parent: nn.Module, linear: Callable[..., nn.Module]) -> None:
    for name, child in parent.named_children():
        if isinstance(child, Attention) and can_pack(child.q_proj.weight):
            setattr(parent, name, PackedAttention(child, linear))
        elif isinstance(child, nn.Linear) and can_pack(child.weight):
            setattr(parent, name, linear(child.weight, child.bias))
        elif isinstance(child, LayerNorm1P):
            setattr(parent, name, _plain(child))
        else:
            _pack_within(child, linear)


def _plain(norm: LayerNorm1P) -> nn.LayerNorm:
    """The same norm with one added to its weight once, not at each call."""
    plain = nn.LayerNorm(norm.weight.shape, norm.eps, device="meta")
    plain.weight = nn.Parameter(norm.weight.detach() + 1, requires_grad=False)
    plain.bias = norm.bias
    return plain
