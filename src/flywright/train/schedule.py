"""Learning rate and batch size as functions of what was consumed; no state.

Both follow samples. A pretraining sample is a window of a fixed number of tokens, so that there
consumed samples are consumed tokens.
"""

import math

from flywright.train.settings import TrainSettings


def batch_size(settings: TrainSettings, consumed: int) -> int:
    """Samples of the batch that starts after `consumed` samples (SPEC 3.3's ramp)."""
    now = (size for until, size in settings.batch_ramp if consumed < until)
    return next(now, settings.batch_size)


def steps_of(settings: TrainSettings, total: int) -> list[int]:
    """Batch size of every step of a run of `total` samples; the last one may be smaller."""
    sizes, consumed = [], 0
    while consumed < total:
        sizes.append(min(batch_size(settings, consumed), total - consumed))
        consumed += sizes[-1]
    return sizes


def learning_rate(settings: TrainSettings, step: int, consumed: int, total: int) -> float:
    """Rate of step number `step` (from 0), which starts after `consumed` of `total` samples.

    Warm-up counts steps; the rest is `remaining` of the way from the least rate to the full one.
    """
    warmup = min(1.0, (step + 1) / (settings.warmup_steps + 1))
    highest, lowest = settings.learning_rate, settings.min_learning_rate
    return (lowest + (highest - lowest) * remaining(settings, consumed / total)) * warmup


def remaining(settings: TrainSettings, progress: float) -> float:
    """How much of the rate's range is left, 1 to 0, after a share `progress` of the samples.

    wsd: warm-up, stable, decay (arXiv 2404.06395), the decay linear. steep: for continued training,
    where the slope matters more than the height (SPEC 2); that it is 1 - sqrt(progress) is ours.
    """
    left = {
        "constant": 1.0,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "linear": 1 - progress,
        "wsd": min(1.0, (1 - progress) / settings.decay_share),
        "steep": 1 - math.sqrt(progress),
    }
    return left[settings.schedule]
