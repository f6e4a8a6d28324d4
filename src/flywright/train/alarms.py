"""Alarms: what goes wrong in preference training while the loss looks well. They tell, not stop.

A figure of `objectives.pairs.health`, smoothed over some steps, that passes its limit is told once,
and again only after it was well. The limits are ours.
"""

from collections.abc import Iterator

STEPS = 10  # that a figure is smoothed over

# figure -> limit, which side of it is bad, what it means
LIMITS: dict[str, tuple[float, str, str]] = {
    "chosen_gain_per_token": (
        -0.1,
        "below",
        "the chosen answers become less likely: raise sft_weight or beta, or lower the rate",
    ),
    "margin_length_correlation": (
        0.5,
        "above",
        "the margin follows length: longer answers win; look at the pairs",
    ),
    "kl_per_token": (0.5, "above", "the policy leaves its reference: raise beta or lower the rate"),
}


class Watch:
    """Smoothed figures of one training, and which of them are past their limits now."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float, bool]] = {}  # steps, the smoothed figure, rings

    def alarms(self, step: int, values: dict[str, float]) -> Iterator[str]:
        """One line for each figure that passes its limit at this step."""
        for name in [name for name in LIMITS if name in values]:
            steps, smooth, rang = self._seen.get(name, (0, 0.0, False))
            steps += 1
            smooth += 1 / min(steps, STEPS) * (values[name] - smooth)
            limit, side, meaning = LIMITS[name]
            rings = steps >= STEPS and (smooth < limit if side == "below" else smooth > limit)
            self._seen[name] = steps, smooth, rings
            if rings and not rang:
                yield f"step {step}: {name} is {smooth:.3f}, {side} {limit}: {meaning}"
