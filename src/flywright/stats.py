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


def standard_error(groups: Sequence[Sequence[float]]) -> float:
    """Of the mean over all items of the groups, from their sample variances; 0 for one item each.

    One group: sd / sqrt(n). Several (subjects of a benchmark): pooled as lm-evaluation-harness
    pools them, the spread between groups left out.
    """
    sizes = [len(group) for group in groups]
    spread = sum((n - 1) * np.var(g, ddof=1) for g, n in zip(groups, sizes, strict=True) if n > 1)
    degrees = sum(sizes) - len(sizes)
    return float(np.sqrt(spread / degrees / sum(sizes))) if degrees else 0.0


def clustered_error(groups: Sequence[Sequence[float]]) -> float:
    """Standard error of the mean where items of a group go together (arXiv 2411.00640, with
    C / (C - 1)); 0 for one group."""
    count, total = len(groups), sum(len(group) for group in groups)
    mean = sum(map(sum, groups)) / total
    sums = sum((sum(group) - mean * len(group)) ** 2 for group in groups)
    return float(np.sqrt(sums * count / (count - 1)) / total) if count > 1 else 0.0


def clustered_mean(groups: Sequence[Sequence[float]], resamples: int = 1000) -> Interval:
    """Mean over all items; whole groups are drawn anew, so that items of a group go together."""
    sums, sizes = np.array([sum(g) for g in groups]), np.array([len(g) for g in groups])
    picks = np.random.default_rng(0).integers(0, len(groups), (resamples, len(groups)))
    means = sums[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(sums.sum() / sizes.sum()), float(low), float(high), int(sizes.sum()))


def detectable(error: float) -> float:
    """The least true difference that a comparison with this standard error finds in 4 of 5 tries,
    at the 5 % level: (1.960 + 0.842) errors."""
    return 2.802 * error


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
