"""Learning rate and batch size as functions of consumed samples; no state."""

import math

from flywright.train.settings import TrainSettings


def batch_size(settings: TrainSettings, consumed: int) -> int:
    """Samples of the batch that starts after `consumed` samples (SPEC 3.3's ramp)."""
    for until, size in settings.batch_ramp:
        if consumed < until:
            return size
    return settings.batch_size


def steps_of(settings: TrainSettings, total: int) -> list[int]:
    """Batch size of every step of a run of `total` samples; the last one may be smaller."""
    sizes, consumed = [], 0
    while consumed < total:
        sizes.append(min(batch_size(settings, consumed), total - consumed))
        consumed += sizes[-1]
    return sizes


def learning_rate(settings: TrainSettings, step: int, consumed: int, total: int) -> float:
    """Rate of step number `step` (from 0), which starts after `consumed` of `total` samples.

    Warm-up counts steps; the decay follows consumed samples, from the full to the least rate.
    """
    warmup = min(1.0, (step + 1) / (settings.warmup_steps + 1))
    highest, lowest = settings.learning_rate, settings.min_learning_rate
    progress = consumed / total
    if settings.schedule == "cosine":
        rate = lowest + (highest - lowest) * 0.5 * (1 + math.cos(math.pi * progress))
    elif settings.schedule == "linear":
        rate = highest + (lowest - highest) * progress
    else:
        rate = highest
    return rate * warmup
