"""Grouped-query attention. What attends to what comes from outside, as an `Attend`.

A KV cache, packing of documents or a tensor-parallel variant is another Attend; the model does not
change. Shapes: B batch, T positions, H query heads, G key-value heads, K head dimension, D hidden.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from flywright.model.rotary import rotate
from flywright.spec import ModelSpec

Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def causal(
    _layer: int, q_BHTK: torch.Tensor, k_BGTK: torch.Tensor, v_BGTK: torch.Tensor
) -> torch.Tensor:
    """Every position attends to itself and all before it in its row."""
    return F.scaled_dot_product_attention(q_BHTK, k_BGTK, v_BGTK, is_causal=True, enable_gqa=True)


def _uniform(documents: int) -> Attend:
    """One row of `documents` documents of equal length, attended to as a batch."""

    def split(x_1HTK: torch.Tensor) -> torch.Tensor:
        return x_1HTK[0].unflatten(1, (documents, -1)).transpose(0, 1)

    def attend(
        layer: int, q_BHTK: torch.Tensor, k_BGTK: torch.Tensor, v_BGTK: torch.Tensor
    ) -> torch.Tensor:
        out_DHTK = causal(layer, split(q_BHTK), split(k_BGTK), split(v_BGTK))
        return out_DHTK.transpose(0, 1).flatten(1, 2)[None]

    return attend


def packed(lengths: Sequence[Sequence[int]]) -> Attend:
    """Rows that hold several documents, each alone: lengths[b] are the documents' in row b.

    Lengths of a row add up to T. A loop of causal attention per document is the fastest way on a
    CPU, and exact; documents of one length go as one batch. Positions have to restart at each
    document (`packed_positions`).
    """
    flat = [length for row in lengths for length in row]
    if len(lengths) == 1 and len(set(flat)) == 1:
        return _uniform(len(flat))

    def attend(
        layer: int, q_BHTK: torch.Tensor, k_BGTK: torch.Tensor, v_BGTK: torch.Tensor
    ) -> torch.Tensor:
        rows = []
        for row, row_lengths in enumerate(lengths):
            start, parts = 0, []
            for length in row_lengths:
                span = (slice(row, row + 1), slice(None), slice(start, start + length))
                parts.append(causal(layer, q_BHTK[span], k_BGTK[span], v_BGTK[span]))
                start += length
            rows.append(torch.cat(parts, dim=2))
        return torch.cat(rows, dim=0)

    return attend


def packed_positions(lengths: Sequence[Sequence[int]]) -> torch.Tensor:
    """Positions [B, T] that restart at 0 with each document."""
    return torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths])


class Attention(nn.Module):
    """Project, rotate, attend, project back; no biases (SPEC 1.3)."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.head_dim = spec.head_dim
        query, key = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        self.q_proj = nn.Linear(spec.hidden_size, query, bias=False)
        self.k_proj = nn.Linear(spec.hidden_size, key, bias=False)
        self.v_proj = nn.Linear(spec.hidden_size, key, bias=False)
        self.o_proj = nn.Linear(query, spec.hidden_size, bias=False)

    def _heads(self, x_BTE: torch.Tensor) -> torch.Tensor:
        # -1: under tensor parallelism a rank holds some of the heads
        return x_BTE.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def forward(
        self,
        x_BTD: torch.Tensor,
        tables: tuple[torch.Tensor, torch.Tensor],
        layer: int,
        attend: Attend,
    ) -> torch.Tensor:
        """Attention output, [B, T, D]."""
        q_BHTK = rotate(self._heads(self.q_proj(x_BTD)), tables)
        k_BGTK = rotate(self._heads(self.k_proj(x_BTD)), tables)
        v_BGTK = self._heads(self.v_proj(x_BTD))
        out_BHTK = attend(layer, q_BHTK, k_BGTK, v_BGTK)
        return self.o_proj(out_BHTK.transpose(1, 2).flatten(-2))
