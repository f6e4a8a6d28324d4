"""The pictures of training: loss, and what preference training did; "" if nothing to draw."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flywright.report.artifacts import TRAINING_STEPS, Curve, label, rank
from flywright.report.canvas import few_ticks, panels, picture, turn_colour, turn_legend


def _smooth(values: np.ndarray) -> np.ndarray:
    """A centred moving mean over a twentieth of the curve, over what is a number."""
    width = max(1, len(values) // 20)
    good = np.isfinite(values)
    kernel = np.ones(width)
    sums = np.convolve(np.where(good, values, 0.0), kernel, mode="same")
    counts = np.convolve(good.astype(float), kernel, mode="same")
    return sums / np.where(counts > 0, counts, np.nan)


def _draw_curve(axes: Axes, curve: Curve, column: str) -> None:
    """One step's column against its optimizer steps: faint as it was, strong when smoothed."""
    values = np.array(curve.columns[column])
    steps = np.array(curve.columns.get("step", list(range(len(values)))))
    colour = turn_colour(curve.step.turn)
    thin = max(1, len(values) // 400)  # more points than pixels only make the page heavy
    axes.plot(steps[::thin], values[::thin], color=colour, lw=0.7, alpha=0.35)
    axes.plot(steps[::thin], _smooth(values)[::thin], color=colour, lw=1.7)
    if len(values) == 1:
        axes.plot(steps, values, "o", color=colour)


def _has(curve: Curve, column: str) -> bool:
    return any(math.isfinite(value) for value in curve.columns.get(column, ()))


def _kinds(curves: list[Curve]) -> list[str]:
    found = {curve.step.kind for curve in curves}
    return sorted(found, key=lambda kind: (rank(kind, TRAINING_STEPS, 99), kind))


def losses(curves: list[Curve]) -> str:
    """Loss of every training step, a panel for each kind of step, the turns in one panel."""
    curves = [curve for curve in curves if _has(curve, "loss")]
    kinds = _kinds(curves)
    if not kinds:
        return ""

    def draw(figure: Figure) -> None:
        for axes, kind in zip(panels(figure, len(kinds), 3), kinds, strict=True):
            for curve in curves:
                if curve.step.kind == kind:
                    _draw_curve(axes, curve, "loss")
            axes.set_title(label(kind))
            few_ticks(axes, whole_x=True)
            axes.set_xlabel("optimizer step")
            axes.set_ylabel("loss")
        turn_legend(figure, sorted({c.step.turn for c in curves if c.step.turn}))

    rows = -(-len(kinds) // 3)
    return picture("losses", "Training loss by step", 0.3 + 1.85 * rows, draw)


PREFERENCE_COLUMNS = {
    "margin": "margin (nats)",
    "chosen_logprob": "chosen log-prob. (nats)",
    "accuracy": "pairs ranked right",
}


def preferences(curves: list[Curve]) -> str:
    """Margin, chosen log-probability and pair accuracy of DPO and RPO, a column for each step."""
    curves = [curve for curve in curves if _has(curve, "margin") or _has(curve, "chosen_logprob")]
    kinds = _kinds(curves)
    columns = [name for name in PREFERENCE_COLUMNS if any(_has(curve, name) for curve in curves)]
    if not kinds or not columns:
        return ""

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(columns), len(kinds), squeeze=False, sharey="row")
        for y, column in enumerate(columns):
            for x, kind in enumerate(kinds):
                axes = grid[y][x]
                for curve in curves:
                    if curve.step.kind == kind and _has(curve, column):
                        _draw_curve(axes, curve, column)
                few_ticks(axes, x=3, whole_x=True)
                if y == 0:
                    axes.set_title(label(kind))
                if x == 0:
                    axes.set_ylabel(PREFERENCE_COLUMNS[column])
                if y == len(columns) - 1:
                    axes.set_xlabel("optimizer step")
        turn_legend(figure, sorted({curve.step.turn for curve in curves}))

    return picture("preferences", "Preference training", 0.4 + 1.7 * len(columns), draw)
