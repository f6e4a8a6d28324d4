"""Grouped-query attention. What attends to what comes from outside, as an `Attend`.

A KV cache, packing of documents or a tensor-parallel variant is another Attend; the model does not
change. Shapes: B batch, T positions, H query heads, G key-value heads, K head dimension, D hidden.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
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
    return F.scaled_dot_product_attention(q_BHTK, k_BGTK, v_BGTK, is_causal=True, enable_gqa=True)


def blocked_causal(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
    """The same by blocks of queries, each with the scores of what stands before it."""
    T = q_BHTK.shape[2]
    parts = []
    for start in range(0, T, QUERIES):
        end = min(T, start + QUERIES)
        future_QS = torch.ones(end - start, end, dtype=torch.bool, device=q_BHTK.device)
        k_BGSK, v_BGSK = k_BGTK[:, :, :end], v_BGTK[:, :, :end]
        parts.append(masked(q_BHTK[:, :, start:end], k_BGSK, v_BGSK, future_QS.triu(1 + start)))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def masked(q_BHQK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, hidden_QS: Tensor) -> Tensor:
    """Attention of Q queries to S keys, but for those that are hidden (True; it broadcasts).

    Query heads of a group share one product: E = H / G * Q.
    """
    B, H, Q, K = q_BHQK.shape
    G, S = k_BGSK.shape[1:3]
    q_BGEK = (q_BHQK * K**-0.5).reshape(B, G, -1, K)
    scores_BHQS = (q_BGEK @ k_BGSK.transpose(-1, -2)).view(B, H, Q, S)
    weights_BHQS = scores_BHQS.masked_fill(hidden_QS, -torch.inf).softmax(-1)
    return (weights_BHQS.view(B, G, -1, S) @ v_BGSK).view(B, H, Q, K)


def packed(lengths: Sequence[int], parents: Sequence[int] = ()) -> Attend:
    """One row [1, H, N, K] of segments end to end, documents kept apart; lengths add up to N.

    parents: of each segment the one that it goes on from, and sees whole; -1 = it begins a
    document, as all do where no parents are given. Segments of similar size go as one batch, padded
    at their ends, where the causal mask hides the padding. Positions restart at each document.
    """
    parents = parents or [-1] * len(lengths)
    buckets: dict[tuple[int, int], list[int]] = {}
    for segment, (length, parent) in enumerate(zip(lengths, parents, strict=True)):
        before = lengths[parent] if parent >= 0 else 0
        buckets.setdefault((_rounded(length), _rounded(before)), []).append(segment)
    takes = [_Take.of(segments, lengths, parents) for segments in buckets.values()]
    order_N = torch.cat([take.place_DQ[take.valid_DQ] for take in takes]).argsort()
    kept_N = torch.cat([take.valid_DQ.flatten() for take in takes]).nonzero()[:, 0][order_N]

    def attend(layer: int, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
        parts = [take.attend(layer, q_BHTK, k_BGTK, v_BGTK) for take in takes]
        out_HNK = torch.cat([part.transpose(0, 1).flatten(1, 2) for part in parts], dim=1)
        return out_HNK.index_select(1, kept_N.to(out_HNK.device))[None]

    return attend


def _rounded(length: int) -> int:
    return -(-length // BUCKET) * BUCKET


@dataclass(frozen=True)
class _Take:
    """Segments of similar size as one batch: places [D, Q] of queries, which are real, and, where
    they go on from others, places [D, S] of keys with what of them is hidden, [D, 1, Q, S].
    """

    place_DQ: Tensor
    valid_DQ: Tensor
    key_DS: Tensor | None = None
    hidden_D1QS: Tensor | None = None

    @classmethod
    def of(cls, segments: list[int], lengths: Sequence[int], parents: Sequence[int]) -> "_Take":
        """From segments' numbers; all of them go on from another, or none does."""
        starts = np.cumsum([0, *lengths])
        column = lambda numbers: torch.tensor([int(n) for n in numbers])[:, None]  # noqa: E731
        start_D1 = column(starts[s] for s in segments)
        own_D1 = column(lengths[s] for s in segments)
        longest = int(own_D1.max())
        roots = parents[segments[0]] < 0
        offset_Q = torch.arange(_rounded(longest) if roots else longest)
        place_DQ = start_D1 + offset_Q.clamp(max=own_D1 - 1)
        if roots:
            return cls(place_DQ, offset_Q < own_D1)
        parent_D1 = column(starts[parents[s]] for s in segments)
        before_D1 = column(lengths[parents[s]] for s in segments)
        offset_S = torch.arange(int((before_D1 + own_D1).max()))
        own_DS = start_D1 + (offset_S - before_D1).clamp(max=own_D1 - 1)
        key_DS = torch.where(offset_S < before_D1, parent_D1 + offset_S, own_DS)
        hidden_DQS = offset_S > (before_D1 + offset_Q)[..., None]
        return cls(place_DQ, offset_Q < own_D1, key_DS, hidden_DQS[:, None])

    def attend(self, layer: int, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
        """[D, H, Q, K] of the segments of a row [1, H, N, K]."""
        q_DHQK = _taken(q_BHTK, self.place_DQ)
        keys_DS = self.place_DQ if self.key_DS is None else self.key_DS
        k_DGSK, v_DGSK = _taken(k_BGTK, keys_DS), _taken(v_BGTK, keys_DS)
        if self.hidden_D1QS is None:
            return causal(layer, q_DHQK, k_DGSK, v_DGSK)
        return masked(q_DHQK, k_DGSK, v_DGSK, self.hidden_D1QS.to(q_DHQK.device))


def _taken(x_1HNK: Tensor, place_DT: Tensor) -> Tensor:
    """Positions of a row as a batch [D, H, T, K]."""
    flat = x_1HNK[0].index_select(1, place_DT.flatten().to(x_1HNK.device))
    return flat.unflatten(1, tuple(place_DT.shape)).transpose(0, 1)


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
