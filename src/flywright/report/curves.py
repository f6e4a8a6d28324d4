"""The pictures of training: loss, and what preference training did to its pairs."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flywright.report.artifacts import Step, label, rank
from flywright.report.canvas import few_ticks, legend, panels, picture, turn_colour

PREFERENCE_COLUMNS = {
    "margin": "margin (nats)",
    "chosen_logprob": "chosen log-prob. (nats)",
    "accuracy": "pairs ranked right",
}


def _smooth(values: np.ndarray) -> np.ndarray:
    """A centred moving mean over a twentieth of the curve."""
    kernel = np.ones(max(1, len(values) // 20))
    counts = np.convolve(np.ones(len(values)), kernel, mode="same")
    return np.convolve(values, kernel, mode="same") / counts


def _kinds(steps: list[Step]) -> list[str]:
    return sorted(dict.fromkeys(step.kind for step in steps), key=rank)


def _draw(axes: Axes, steps: list[Step], kind: str, column: str) -> None:
    """A column of all turns of one kind of step: faint as it was, strong when smoothed."""
    for step in steps:
        if step.kind != kind:
            continue
        x = np.array([row["step"] for row in step.metrics])
        y = np.array([row[column] for row in step.metrics])
        colour = turn_colour(step.turn)
        thin = max(1, len(x) // 400)  # more points than pixels only make the page heavy
        axes.plot(x[::thin], y[::thin], color=colour, lw=0.7, alpha=0.35)
        marker = "o" if len(x) == 1 else ""
        axes.plot(x[::thin], _smooth(y)[::thin], color=colour, lw=1.7, marker=marker)


@picture("Training loss by step")
def losses(figure: Figure, steps: list[Step]) -> None:
    """Loss of every training step, a panel for each kind of step, the turns in one panel."""
    steps = [step for step in steps if step.metrics]
    kinds = _kinds(steps)
    if not kinds:
        return
    for axes, kind in zip(panels(figure, len(kinds), 3, 1.85), kinds, strict=True):
        _draw(axes, steps, kind, "loss")
        few_ticks(axes)
        axes.set_title(label(kind))
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss")
    legend(figure, sorted({step.turn for step in steps if step.turn}))


@picture("Preference training")
def preferences(figure: Figure, steps: list[Step]) -> None:
    """Margin, chosen log-probability and pair accuracy of DPO and RPO, a column for each step."""
    steps = [step for step in steps if step.metrics and "margin" in step.metrics[0]]
    kinds = _kinds(steps)
    if not kinds:
        return
    figure.set_figheight(0.4 + 1.7 * len(PREFERENCE_COLUMNS))
    grid = figure.subplots(len(PREFERENCE_COLUMNS), len(kinds), squeeze=False, sharey="row")
    for line, (column, words) in zip(grid, PREFERENCE_COLUMNS.items(), strict=True):
        line[0].set_ylabel(words)
        for axes, kind in zip(line, kinds, strict=True):
            _draw(axes, steps, kind, column)
            few_ticks(axes, x=3)
    for x, kind in enumerate(kinds):
        grid[0][x].set_title(label(kind))
        grid[-1][x].set_xlabel("optimizer step")
    legend(figure, sorted({step.turn for step in steps}))
