"""The next token of every row at once, each row by its own settings.

Randomness is a counter, not a state: token i of a request is drawn with `uniform(seed, i)`, a hash
of the request's seed and i alone. So a sample does not depend on which other rows are in the batch,
on when the request joined, or on the order of arrival (HOUSE law 3).

A drawn row inverts its cumulative distribution at that one number: in vocabulary order, or, where
top-k or top-p cut the distribution, from the most likely token down (ties by token id).

Shapes: B rows, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # the constants of splitmix64, as signed 64-bit numbers
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


@dataclass(frozen=True)
class Draw:
    """How each row is drawn; tensors [B].

    temperature 0 is greedy; top_k 0 and top_p 1 cut nothing; `index` counts the tokens that the
    request already has.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    seed: Tensor
    index: Tensor


def _shift(value: Tensor, bits: int) -> Tensor:
    """Logical (zero-filling) right shift of a signed 64-bit tensor."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    """splitmix64's finaliser (Steele, Lea, Flood 2014): every bit depends on every bit."""
    value = (value ^ _shift(value, 30)) * _MIX_1
    value = (value ^ _shift(value, 27)) * _MIX_2
    return value ^ _shift(value, 31)


def uniform(seed_B: Tensor, index_B: Tensor) -> Tensor:
    """float64 numbers in [0, 1), multiples of 2^-32: a hash of int64 seeds and token indices."""
    bits = _mix(_mix(seed_B) + (index_B + 1) * _GOLDEN)
    return _shift(bits, 32).double() / 2**32


def _invert(weights_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """First column whose cumulative weight exceeds uniform * total; never one of weight zero."""
    cumulative_BV = weights_BV.double().cumsum(-1)
    target_B1 = uniform_B[:, None] * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, target_B1, right=True)[:, 0]


def _draw_cut(logits_BV: Tensor, top_k_B: Tensor, top_p_B: Tensor, uniform_B: Tensor) -> Tensor:
    """Draw from the top_k most likely tokens, and of those from the smallest head of mass top_p."""
    sorted_BV, ids_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
    rank_V = torch.arange(logits_BV.shape[-1], device=logits_BV.device)
    beyond_BV = (top_k_B[:, None] > 0) & (rank_V >= top_k_B[:, None])
    weights_BV = sorted_BV.masked_fill(beyond_BV, float("-inf")).softmax(-1)
    before_BV = weights_BV.cumsum(-1) - weights_BV
    cut_BV = (before_BV >= top_p_B[:, None]) & (rank_V > 0)
    picked_B = _invert(weights_BV.masked_fill(cut_BV, 0.0), uniform_B)
    return ids_BV.gather(-1, picked_B[:, None])[:, 0]


def sample(logits_BV: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """The next token of every row, and its log-probability.

    The log-probability is the model's own: log-softmax in fp32 of the untempered, uncut logits.
    """
    logits_BV = logits_BV.float()
    tokens_B = logits_BV.argmax(-1)
    drawn = draw.temperature.nonzero()[:, 0]
    if len(drawn):
        tokens_B[drawn] = _draw(logits_BV, draw, drawn)
    chosen_B = logits_BV.gather(-1, tokens_B[:, None])[:, 0]
    return tokens_B, chosen_B - logits_BV.logsumexp(-1)


def _draw(logits_BV: Tensor, draw: Draw, rows: Tensor) -> Tensor:
    """Tokens of the rows that are not greedy."""
    hot_BV = logits_BV[rows] / draw.temperature[rows, None]
    uniform_B = uniform(draw.seed[rows], draw.index[rows])
    top_k_B, top_p_B = draw.top_k[rows], draw.top_p[rows]
    cut_B = (top_k_B > 0) | (top_p_B < 1)
    tokens_B = torch.empty(len(rows), dtype=torch.long, device=logits_BV.device)
    whole, cut = (~cut_B).nonzero()[:, 0], cut_B.nonzero()[:, 0]
    if len(whole):
        tokens_B[whole] = _invert(hot_BV[whole].softmax(-1), uniform_B[whole])
    if len(cut):
        tokens_B[cut] = _draw_cut(hot_BV[cut], top_k_B[cut], top_p_B[cut], uniform_B[cut])
    return tokens_B
