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
    "kl_per_token": (
        0.5,
        "above",
        "the policy leaves its reference: raise beta or lower the rate",
    ),
}


class Watch:
    """Smoothed figures of one training, and which of them are past their limits now."""

    def __init__(self) -> None:
        self._smooth: dict[str, float] = {}
        self._seen: dict[str, int] = {}
        self._ringing: set[str] = set()

    def alarms(self, step: int, values: dict[str, float]) -> Iterator[str]:
        """One line for each figure that passes its limit at this step."""
        for name in [name for name in LIMITS if name in values]:
            self._seen[name] = self._seen.get(name, 0) + 1
            weight = 1 / min(self._seen[name], STEPS)
            before = self._smooth.get(name, 0.0)
            self._smooth[name] = now = before + weight * (values[name] - before)
            limit, side, meaning = LIMITS[name]
            bad = now < limit if side == "below" else now > limit
            if bad and name not in self._ringing and self._seen[name] >= STEPS:
                self._ringing.add(name)
                yield f"step {step}: {name} is {now:.3f}, {side} {limit}: {meaning}"
            elif not bad:
                self._ringing.discard(name)
