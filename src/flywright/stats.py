"""Numbers with their uncertainty: bootstrap intervals, paired differences, agreement.

All resampling is seeded, so that the same values give the same interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval over `n` items."""

    mean: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float]:
        """The form that stages.json holds."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}


def bootstrap_mean(
    values: Sequence[float], resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Mean over items with a percentile bootstrap interval. Raises ValueError when empty."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("bootstrap_mean: no values")
    picks = np.random.default_rng(seed).integers(0, array.size, size=(resamples, array.size))
    means = array[picks].mean(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(array.mean()), float(low), float(high), int(array.size))


def paired_difference(
    after: Sequence[float], before: Sequence[float], resamples: int = 1000, seed: int = 0
) -> Interval:
    """Mean of after - before over the same items, with its bootstrap interval."""
    if len(after) != len(before):
        raise ValueError(f"paired_difference: {len(after)} and {len(before)} items")
    return bootstrap_mean(np.subtract(after, before).tolist(), resamples, seed)


def cohen_kappa(first: Sequence[int], second: Sequence[int], levels: int = 5) -> float:
    """Quadratic-weighted Cohen kappa of two raters on 0..levels-1 (SPEC 5.6)."""
    table = np.zeros((levels, levels))
    for a, b in zip(first, second, strict=True):
        table[a, b] += 1
    table /= table.sum()
    expected = np.outer(table.sum(axis=1), table.sum(axis=0))
    weights = np.subtract.outer(np.arange(levels), np.arange(levels)) ** 2
    disagreement = (weights * expected).sum()
    return float(1 - (weights * table).sum() / disagreement) if disagreement else 1.0
