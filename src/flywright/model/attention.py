"""Grouped-query attention. What attends to what comes from outside, as an `Attend`.

A KV cache, packing of documents or a tensor-parallel variant is another Attend; the model does not
change. Shapes: B batch, T positions, H query heads, G key-value heads, K head dimension, D hidden.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flywright.model.norm import RMSNorm
from flywright.model.rotary import rotate
from flywright.spec import ModelSpec

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


BLOCKED_TOKENS = 1024  # where benchmarks/attention.py sees the gain end
QUERIES = 128  # of a block
BUCKET = 32  # packed documents are padded to a multiple of this, for attention only


def causal(_layer: int, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
    """Every position attends to itself and all before it in its row.

    bf16 on a CPU takes the blocked form: the fused kernel is the slower one there
    (benchmarks/attention.py). Everywhere else the fused one.
    """
    short = q_BHTK.shape[2] <= BLOCKED_TOKENS
    if short and q_BHTK.is_cpu and q_BHTK.dtype == torch.bfloat16:
        return blocked_causal(q_BHTK, k_BGTK, v_BGTK)
    return fused_causal(q_BHTK, k_BGTK, v_BGTK)


def fused_causal(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
    """Causal attention by torch's fused kernel."""
    return F.scaled_dot_product_attention(q_BHTK, k_BGTK, v_BGTK, is_causal=True, enable_gqa=True)


def blocked_causal(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
    """The same by blocks of queries, each with the scores of what stands before it.

    Query heads of a group share one product. R = H / G, Q queries of a block, S keys up to its end.
    """
    B, H, T, K = q_BHTK.shape
    G = k_BGTK.shape[1]
    q_BGRTK = (q_BHTK * K**-0.5).view(B, G, H // G, T, K)
    parts = []
    for start in range(0, T, QUERIES):
        end = min(T, start + QUERIES)
        q_BGEK = q_BGRTK[:, :, :, start:end].reshape(B, G, -1, K)  # E = R * Q
        scores_BGES = q_BGEK @ k_BGTK[:, :, :end].transpose(-1, -2)
        future_QS = torch.ones(end - start, end, dtype=torch.bool, device=q_BHTK.device)
        scores_BHQS = scores_BGES.view(B, H, end - start, end)
        weights_BHQS = scores_BHQS.masked_fill(future_QS.triu(1 + start), -torch.inf).softmax(-1)
        out_BGEK = weights_BHQS.view(scores_BGES.shape) @ v_BGTK[:, :, :end]
        parts.append(out_BGEK.view(B, H, end - start, K))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def packed(lengths: Sequence[int]) -> Attend:
    """One row [1, H, N, K] of documents end to end, each attended to alone; lengths add up to N.

    Documents of similar length go through `causal` as one batch, padded at their ends, where the
    causal mask hides the padding. Positions have to restart at each document.
    """
    if len(set(lengths)) == 1:
        return _equal(len(lengths))
    starts = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    buckets: dict[int, list[int]] = {}
    for document, length in enumerate(lengths):
        buckets.setdefault(-(-length // BUCKET) * BUCKET, []).append(document)
    takes = []
    for width, documents in buckets.items():
        first_D1 = torch.tensor([starts[d] for d in documents])[:, None]
        length_D1 = torch.tensor([lengths[d] for d in documents])[:, None]
        offset_T = torch.arange(width)
        takes.append((first_D1 + offset_T.clamp(max=length_D1 - 1), offset_T < length_D1))
    order_N = torch.cat([place[valid] for place, valid in takes]).argsort()
    kept_N = torch.cat([valid.flatten() for _, valid in takes]).nonzero()[:, 0][order_N]

    def attend(layer: int, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
        parts = []
        for place_DT, _ in takes:
            q, k, v = (_taken(x, place_DT) for x in (q_BHTK, k_BGTK, v_BGTK))
            parts.append(causal(layer, q, k, v).transpose(0, 1).flatten(1, 2))
        return torch.cat(parts, dim=1).index_select(1, kept_N)[None]

    return attend


def _taken(x_1HNK: Tensor, place_DT: Tensor) -> Tensor:
    """Positions of a row as a batch [D, H, T, K]."""
    flat = x_1HNK[0].index_select(1, place_DT.flatten())
    return flat.unflatten(1, tuple(place_DT.shape)).transpose(0, 1)


def _equal(documents: int) -> Attend:
    """A row of documents of one length: a batch without any copying."""

    def split(x_1HNK: Tensor) -> Tensor:
        return x_1HNK[0].unflatten(1, (documents, -1)).transpose(0, 1)

    def attend(layer: int, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
        out_DHTK = causal(layer, split(q_BHTK), split(k_BGTK), split(v_BGTK))
        return out_DHTK.transpose(0, 1).flatten(1, 2)[None]

    return attend


class Attention(nn.Module):
    """Project, rotate, attend, project back; no biases in a Nemotron (SPEC 1.3)."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.head_dim = spec.head_dim
        query, key = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        self.q_proj = nn.Linear(spec.hidden_size, query, bias=spec.qkv_bias)
        self.k_proj = nn.Linear(spec.hidden_size, key, bias=spec.qkv_bias)
        self.v_proj = nn.Linear(spec.hidden_size, key, bias=spec.qkv_bias)
        self.o_proj = nn.Linear(query, spec.hidden_size, bias=False)
        self.q_norm = RMSNorm(spec.head_dim, spec.norm_eps) if spec.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(spec.head_dim, spec.norm_eps) if spec.qk_norm else nn.Identity()

    def _heads(self, x_BTE: Tensor) -> Tensor:
        # -1: under tensor parallelism a rank holds some of the heads
        return x_BTE.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def forward(
        self, x_BTD: Tensor, tables: tuple[Tensor, Tensor], layer: int, attend: Attend
    ) -> Tensor:
        """Attention output, [B, T, D]."""
        q_BHTK = rotate(self.q_norm(self._heads(self.q_proj(x_BTD))), tables)
        k_BGTK = rotate(self.k_norm(self._heads(self.k_proj(x_BTD))), tables)
        v_BGTK = self._heads(self.v_proj(x_BTD))
        out_BHTK = attend(layer, q_BHTK, k_BGTK, v_BGTK)
        return self.o_proj(out_BHTK.transpose(1, 2).flatten(-2))
