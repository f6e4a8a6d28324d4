"""The pictures of what was measured and of training: SVG text, "" if there is nothing to draw."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from flywright.report import canvas
from flywright.report.artifacts import Evaluation, Step, label
from flywright.report.canvas import GREY, picture
from flywright.report.tables import METRICS, is_share, measured, metric_label, metric_names

PREFERENCE_COLUMNS = {
    "margin": "margin (nats)",
    "chosen_logprob": "chosen log-prob. (nats)",
    "accuracy": "pairs ranked right",
}


def _draw_line(axes: Axes, turn: int, x: list[int], values: np.ndarray) -> None:
    """One turn's stages as points with intervals, joined by a line. `values`: mean, low, high."""
    colour, places = canvas.turn_colour(turn), np.array(x) + 0.1 * (turn - 1)
    axes.plot(places, values[0], color=colour, lw=1.8, marker="o", ms=4.5, zorder=3)
    axes.vlines(places, values[1], values[2], color=colour, lw=1.4, alpha=0.55)


@picture("Metrics by stage with intervals")
def stages(figure: Figure, evaluations: list[Evaluation]) -> None:
    """Each metric through the stages, with 95 % intervals; dashed: a model from outside."""
    ours = [row for row in evaluations if row.ours]
    outside = dict.fromkeys(row.stage for row in evaluations if not row.ours)
    metrics = [name for name in metric_names(ours) if name in METRICS]
    if not metrics:
        return
    order, turns = list(dict.fromkeys(row.stage for row in ours)), sorted({r.turn for r in ours})
    for axes, metric in zip(canvas.panels(figure, len(metrics), 3, 2.2), metrics, strict=True):
        share = is_share(metric, evaluations)
        scale = 100 if share else 1
        found = [(row, value) for row in evaluations if (value := measured(row, metric))]
        for turn in turns:
            if rows := [pair for pair in found if pair[0].turn == turn and pair[0].ours]:
                ends = np.array([(value.mean, value.low, value.high) for _, value in rows]).T
                _draw_line(axes, turn, [order.index(row.stage) for row, _ in rows], scale * ends)
        for value in (value for row, value in found if not row.ours):
            axes.axhline(scale * value.mean, color=GREY, lw=1.2, ls=(0, (4, 3)), zorder=1)
        canvas.few_ticks(axes)
        axes.set_title(metric_label(metric))
        axes.set_ylabel("% of items" if share else "mean")
        axes.set_xticks(range(len(order)), [label(s).replace(" SFT", "\nSFT") for s in order])
        axes.grid(axis="x", visible=False)
    dashes = [Line2D([], [], color=GREY, ls="--", label=label(name)) for name in outside]
    canvas.legend(figure, turns, dashes)


@picture("Rewards and lengths of answers by stage")
def answers(figure: Figure, evaluations: list[Evaluation]) -> None:
    """Histograms a row a stage: rewards on the left, words on the right; upright: the mean."""
    rewards = [np.array(list(row.scores.get("reward", {}).values())) for row in evaluations]
    # evaluations do not repeat the answer beside its reward
    said = [{i.id: i.answer for i in row.items if i.metric != "reward"} for row in evaluations]
    words = [np.array([len(answer.split()) for answer in some.values()]) for some in said]
    told = [("reward, weighted sum", rewards), ("words in an answer", words)]
    told = [(name, values) for name, values in told if any(map(len, values))]
    if not told:
        return
    order = list(dict.fromkeys(row.stage for row in evaluations))
    figure.set_figheight(0.7 + 0.5 * len(order))
    grid = figure.subplots(len(order), len(told), squeeze=False, sharex="col")
    for column, (name, values) in zip(grid.T, told, strict=True):
        low, high = np.quantile(np.concatenate(values), [0.002, 0.99])
        bins = np.linspace(low, max(high, low + 1e-3), 33)
        for row, scores in zip(evaluations, values, strict=True):
            if len(scores):
                axes = column[order.index(row.stage)]
                colour = canvas.turn_colour(row.turn) if row.ours else GREY
                counts, _ = np.histogram(np.clip(scores, bins[0], bins[-1]), bins)
                axes.stairs(counts / len(scores), bins, fill=True, color=colour, alpha=0.5)
                axes.axvline(float(np.mean(scores)), color=colour, lw=1.6)
        for axes, stage in zip(column, order, strict=True):
            if axes in grid[:, 0]:
                axes.set_ylabel(label(stage), rotation=0, ha="right", va="center")
            axes.set(yticks=[], ylim=(0, None))
            axes.grid(axis="y", visible=False)
            axes.spines["left"].set_visible(False)
        column[-1].set_xlabel(name)
    canvas.legend(figure, sorted({row.turn for row in evaluations if row.ours}))


def _smooth(values: np.ndarray) -> np.ndarray:
    """A centred moving mean over a twentieth of the curve."""
    kernel = np.ones(max(1, len(values) // 20))
    counts = np.convolve(np.ones(len(values)), kernel, mode="same")
    return np.convolve(values, kernel, mode="same") / counts


def _draw(axes: Axes, steps: list[Step], kind: str, column: str) -> None:
    """A column of all turns of one kind of step: faint as it was, strong when smoothed."""
    for step in steps:
        if step.kind != kind:
            continue
        x = np.array([row["step"] for row in step.metrics])
        y = np.array([row[column] for row in step.metrics])
        colour = canvas.turn_colour(step.turn)
        thin = max(1, len(x) // 400)  # more points than pixels only make the page heavy
        axes.plot(x[::thin], y[::thin], color=colour, lw=0.7, alpha=0.35)
        marker = "o" if len(x) == 1 else ""
        axes.plot(x[::thin], _smooth(y)[::thin], color=colour, lw=1.7, marker=marker)


@picture("Training loss by step")
def losses(figure: Figure, steps: list[Step]) -> None:
    """Loss of every training step, a panel for each kind of step, the turns in one panel."""
    steps = [step for step in steps if step.metrics]
    kinds = list(dict.fromkeys(step.kind for step in steps))
    if not kinds:
        return
    for axes, kind in zip(canvas.panels(figure, len(kinds), 3, 1.85), kinds, strict=True):
        _draw(axes, steps, kind, "loss")
        canvas.few_ticks(axes)
        axes.set_title(label(kind))
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss")
    canvas.legend(figure, sorted({step.turn for step in steps if step.turn}))


@picture("Preference training")
def preferences(figure: Figure, steps: list[Step]) -> None:
    """Margin, chosen log-probability and pair accuracy of DPO and RPO, a column for each step."""
    steps = [step for step in steps if step.metrics and "margin" in step.metrics[0]]
    kinds = list(dict.fromkeys(step.kind for step in steps))
    if not kinds:
        return
    figure.set_figheight(0.4 + 1.7 * len(PREFERENCE_COLUMNS))
    grid = figure.subplots(len(PREFERENCE_COLUMNS), len(kinds), squeeze=False, sharey="row")
    for line, (column, words) in zip(grid, PREFERENCE_COLUMNS.items(), strict=True):
        line[0].set_ylabel(words)
        for axes, kind in zip(line, kinds, strict=True):
            _draw(axes, steps, kind, column)
            canvas.few_ticks(axes, x=3)
    for x, kind in enumerate(kinds):
        grid[0][x].set_title(label(kind))
        grid[-1][x].set_xlabel("optimizer step")
    canvas.legend(figure, sorted({step.turn for step in steps}))
