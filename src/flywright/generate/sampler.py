"""The next token of every row at once, each row by its own settings.

Randomness is a counter, not a state: token i of a request is drawn with `uniform(seed, i)`, a hash
of the request's seed and i alone. So a sample does not depend on which other rows are in the batch,
on when the request joined, or on the order of arrival (HOUSE law 3).

A drawn row inverts its cumulative distribution at that one number: in vocabulary order, or, where
top-k, top-p or min-p cut the distribution, from the most likely token down (ties by token id).

Shapes: B rows, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from flywright.ask.protocol import Likely, Sampling

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # the constants of splitmix64, as signed 64-bit numbers
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


@dataclass(frozen=True)
class Draw:
    """How each row is drawn; tensors [B].

    temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 cut nothing; `index` counts the tokens
    that the request already has.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    seed: Tensor
    index: Tensor

    @classmethod
    def of(cls, rows: Sequence[tuple[Sampling, int]], device: torch.device) -> "Draw | None":
        """From each row's settings and the index of its token; None if all are greedy."""
        if all(sampling.greedy for sampling, _ in rows):
            return None
        reals = torch.tensor([(s.temperature, s.top_p, s.min_p) for s, _ in rows], device=device)
        seeds = [((s.seed + 2**63) % 2**64 - 2**63, min(s.top_k, 2**31), i) for s, i in rows]
        wholes = torch.tensor(seeds, device=device)
        temperature, top_p, min_p = reals.unbind(1)
        seed, top_k, index = wholes.unbind(1)
        return cls(temperature, top_k, top_p, min_p, seed, index)

    def rows(self, chosen: Tensor) -> "Draw":
        """The settings of some rows."""
        return Draw(*(getattr(self, column.name)[chosen] for column in fields(self)))


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


def _draw_cut(logits_BV: Tensor, draw: Draw, uniform_B: Tensor) -> Tensor:
    """Draw from the top_k most likely tokens, and of those from the smallest head of mass top_p,
    and of that from what has min_p of the first's probability."""
    sorted_BV, ids_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
    rank_V = torch.arange(logits_BV.shape[-1], device=logits_BV.device)
    beyond_BV = (draw.top_k[:, None] > 0) & (rank_V >= draw.top_k[:, None])
    weights_BV = sorted_BV.masked_fill(beyond_BV, float("-inf")).softmax(-1)
    before_BV = weights_BV.cumsum(-1) - weights_BV
    cut_BV = (before_BV >= draw.top_p[:, None]) & (rank_V > 0)
    cut_BV |= weights_BV < draw.min_p[:, None] * weights_BV[:, :1]
    picked_B = _invert(weights_BV.masked_fill(cut_BV, 0.0), uniform_B)
    return ids_BV.gather(-1, picked_B[:, None])[:, 0]


def sample(logits_BV: Tensor, draw: Draw | None) -> Tensor:
    """The next token of every row, by fp32 logits; without settings the most likely ones."""
    tokens_B = logits_BV.argmax(-1)
    if draw is not None:
        drawn = draw.temperature.nonzero()[:, 0]
        tokens_B[drawn] = _draw(logits_BV[drawn], draw.rows(drawn))
    return tokens_B


def _draw(logits_BV: Tensor, draw: Draw) -> Tensor:
    """Tokens of rows that are not greedy."""
    hot_BV = logits_BV / draw.temperature[:, None]
    uniform_B = uniform(draw.seed, draw.index)
    cut_B = (draw.top_k > 0) | (draw.top_p < 1) | (draw.min_p > 0)
    tokens_B = torch.empty_like(draw.index)
    whole, cut = (~cut_B).nonzero()[:, 0], cut_B.nonzero()[:, 0]
    if len(whole):
        tokens_B[whole] = _invert(hot_BV[whole].softmax(-1), uniform_B[whole])
    if len(cut):
        tokens_B[cut] = _draw_cut(hot_BV[cut], draw.rows(cut), uniform_B[cut])
    return tokens_B


def penalise(logits_V: Tensor, seen: Sequence[int], penalty: float) -> None:
    """Make tokens that were there less likely, in place: over the penalty where positive, times it
    where negative (Keskar et al. 2019, and its usual mending for negative logits)."""
    ids = torch.tensor(sorted(set(seen)), device=logits_V.device)
    values = logits_V[ids]
    logits_V[ids] = torch.where(values > 0, values / penalty, values * penalty)


def likely(logprobs_BV: Tensor, count: int) -> list[Likely]:
    """The most likely tokens of each row with their log-probabilities, best first."""
    values_BK, ids_BK = logprobs_BV.topk(min(count, logprobs_BV.shape[-1]))
    rows = zip(ids_BK.tolist(), values_BK.tolist(), strict=True)
    return [tuple(zip(ids, values, strict=True)) for ids, values in rows]
