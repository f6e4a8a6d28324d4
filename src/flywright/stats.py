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


def bootstrap_mean(values: Sequence[float]) -> Interval:
    """Mean over items with a percentile bootstrap interval. Raises ValueError when empty."""
    return mean_of_means([values])


def paired_difference(after: Sequence[float], before: Sequence[float]) -> Interval:
    """Mean of after - before over the same items, with its bootstrap interval."""
    if len(after) != len(before):
        raise ValueError(f"paired_difference: {len(after)} and {len(before)} items")
    return bootstrap_mean(np.subtract(after, before).tolist())


def mean_of_means(groups: Sequence[Sequence[float]], resamples: int = 1000) -> Interval:
    """The mean of the groups' means; items are drawn anew within each group. `n` counts items.

    Give differences of paired items for the interval of a difference. Raises ValueError for no
    group or an empty one.
    """
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    if not arrays or not all(array.size for array in arrays):
        raise ValueError("an interval needs values: no group, or an empty group")
    means = np.zeros(resamples)
    for number, array in enumerate(arrays):
        picks = np.random.default_rng(number).integers(0, array.size, (resamples, array.size))
        means += array[picks].mean(axis=1) / len(arrays)
    low, high = np.quantile(means, [0.025, 0.975])
    mean = float(np.mean([array.mean() for array in arrays]))
    return Interval(mean, float(low), float(high), sum(array.size for array in arrays))
