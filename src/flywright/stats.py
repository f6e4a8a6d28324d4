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


def mean_of_means(groups: Sequence[Sequence[float]], resamples: int = 1000) -> Interval:
    """The mean of the groups' means; items are drawn anew within each group. `n` counts items.

    Give differences of paired items for the interval of a difference. Raises ValueError for an
    empty group.
    """
    if not groups or any(len(group) == 0 for group in groups):
        raise ValueError("mean_of_means: an empty group")
    means = np.zeros(resamples)
    for number, group in enumerate(groups):
        array = np.asarray(group, dtype=np.float64)
        picks = np.random.default_rng(number).integers(0, array.size, (resamples, array.size))
        means += array[picks].mean(axis=1) / len(groups)
    low, high = np.quantile(means, [0.025, 0.975])
    mean = float(np.mean([np.mean(group) for group in groups]))
    return Interval(mean, float(low), float(high), sum(len(group) for group in groups))
