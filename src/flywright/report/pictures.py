"""The pictures of what was measured; each gives SVG text, "" if there is nothing to draw yet."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from flywright.report import canvas
from flywright.report.artifacts import Evaluation, label, rank
from flywright.report.canvas import BLUE, GREEN, GREY, INK, MUTED, PAPER, RED, picture
from flywright.report.tables import METRICS, is_share, metric_label


def _colour(row: Evaluation) -> str:
    return canvas.turn_colour(row.turn) if row.ours else GREY


def _order(rows: list[Evaluation]) -> list[str]:
    """The stages that some turn has, in the order of the road."""
    return sorted({row.stage for row in rows}, key=rank)


def _draw_line(axes: Axes, turn: int, x: list[int], values: np.ndarray) -> None:
    """One turn's stages as points with intervals, joined by a line. `values`: mean, low, high."""
    colour, places = canvas.turn_colour(turn), np.array(x) + 0.1 * (turn - 1)
    axes.plot(places, values[0], color=colour, lw=1.8, marker="o", ms=4.5, zorder=3)
    axes.vlines(places, values[1], values[2], color=colour, lw=1.4, alpha=0.55)


@picture("Metrics by stage with intervals")
def stages(figure: Figure, evaluations: list[Evaluation]) -> None:
    """Each metric through the stages, with 95 % intervals; dashed: a model from outside."""
    ours = [row for row in evaluations if row.ours]
    outside = [row for row in evaluations if not row.ours]
    metrics = [name for name in METRICS if any(name in row.metrics for row in ours)]
    if not metrics:
        return
    order, turns = _order(ours), sorted({row.turn for row in ours})
    for axes, metric in zip(canvas.panels(figure, len(metrics), 2, 2.3), metrics, strict=True):
        share = is_share(metric, evaluations)
        scale = 100 if share else 1
        measured = [row for row in evaluations if metric in row.metrics]
        for turn in turns:
            rows = [row for row in measured if row.turn == turn and row.ours]
            ends = [[row.metrics[metric][end] for row in rows] for end in ("mean", "low", "high")]
            _draw_line(axes, turn, [order.index(row.stage) for row in rows], scale * np.array(ends))
        for mean in (row.metrics[metric]["mean"] for row in measured if not row.ours):
            axes.axhline(scale * mean, color=GREY, lw=1.2, ls=(0, (4, 3)), zorder=1)
        canvas.few_ticks(axes)
        axes.set_title(metric_label(metric))
        axes.set_ylabel("% of items" if share else "mean")
        axes.set_xticks(range(len(order)), [label(s).replace(" SFT", "\nSFT") for s in order])
        axes.grid(axis="x", visible=False)
    dashes = [Line2D([], [], color=GREY, ls="--", label=label(name)) for name in _order(outside)]
    canvas.legend(figure, turns, dashes)


@picture("Reward distribution by stage")
def rewards(figure: Figure, evaluations: list[Evaluation]) -> None:
    """Histograms of the items' rewards, a row a stage, a column a turn; the line is the mean."""
    rows = [row for row in evaluations if row.scores.get("reward")]
    if not rows:
        return
    values = [np.array(list(row.scores["reward"].values())) for row in rows]
    low, high = np.quantile(np.concatenate(values), [0.002, 0.998])
    bins = np.linspace(low, max(high, low + 1e-3), 33)
    order, turns = _order(rows), sorted({row.turn for row in rows})
    figure.set_figheight(0.5 + 0.52 * len(order))
    grid = figure.subplots(len(order), len(turns), squeeze=False, sharex=True)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, scores in zip(rows, values, strict=True):
        _draw_histogram(grid[order.index(row.stage)][turns.index(row.turn)], row, scores, bins)
    for top, bottom, turn in zip(grid[0], grid[-1], turns, strict=True):
        top.set_title(f"Turn {turn}")
        bottom.set_axis_on()
        bottom.set_yticks([])
        bottom.grid(visible=False)
        bottom.spines["left"].set_visible(False)
        bottom.set_xlabel("reward, weighted sum")


def _draw_histogram(axes: Axes, row: Evaluation, scores: np.ndarray, bins: np.ndarray) -> None:
    counts, _ = np.histogram(np.clip(scores, bins[0], bins[-1]), bins)
    axes.set_axis_on()
    axes.stairs(counts / len(scores), bins, fill=True, color=_colour(row), alpha=0.75)
    axes.axvline(float(np.mean(scores)), color=INK, lw=1.2)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(label(row.stage), rotation=0, ha="right", va="center")
    axes.set_yticks([])
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


@picture("Answer length by stage")
def lengths(figure: Figure, evaluations: list[Evaluation]) -> None:
    """Words in an answer by stage: median, middle half (box) and 5th to 95th percentile."""
    if not evaluations:
        return
    names = [f"{label(row.stage)}, turn {row.turn}" for row in evaluations]
    axes = canvas.bars(figure, names, "words in an answer", 0.26)
    for place, row in enumerate(evaluations):
        answers = {item.id: item.answer for item in row.items if item.metric != "reward"}
        words = [len(answer.split()) for answer in answers.values()]
        far_low, low, middle, high, far_high = np.quantile(words, [0.05, 0.25, 0.5, 0.75, 0.95])
        axes.hlines(place, far_low, far_high, color=_colour(row), lw=1.2)
        axes.barh(place, high - low, left=low, height=0.5, color=_colour(row), alpha=0.55)
        axes.plot([middle] * 2, [place - 0.25, place + 0.25], color=INK, lw=1.6)
    axes.set_xlim(left=0)


@picture("Accuracy of the judges")
def judges(figure: Figure, rows: list[tuple[str, float, int]]) -> None:
    """Agreement of each judge with the truth; the dashed line is chance."""
    if not rows:
        return
    axes = canvas.bars(figure, [name for name, *_ in rows], "% of pairs decided right", 0.32)
    for place, (_, accuracy, pairs) in enumerate(rows):
        width, words = 100 * accuracy, f"{100 * accuracy:.1f} % (n = {pairs:,})"
        axes.barh(place, width, height=0.55, color=BLUE, alpha=0.8)
        axes.text(max(width, 50) + 1, place, words, va="center", color=MUTED)
    axes.axvline(50, color=GREY, lw=1.2, ls=(0, (4, 3)))
    axes.set_xlim(0, 125)
    axes.set_xticks([0, 25, 50, 75, 100])


OUTCOMES = (("win", GREEN, 0.85), ("tie", GREY, 0.4), ("loss", RED, 0.85))


@picture("Last stage against General SFT")
def wins(figure: Figure, rows: list[tuple[str, tuple[int, int, int]]]) -> None:
    """Win, tie and loss of the last stage against General SFT on the same items."""
    if not rows:
        return
    names = [f"{name} (n = {sum(counts)})" for name, counts in rows]
    axes = canvas.bars(figure, names, "% of items", 0.32)
    for place, (_, counts) in enumerate(rows):
        left = 0.0
        for count, (name, colour, alpha) in zip(counts, OUTCOMES, strict=True):
            width = 100 * count / sum(counts)
            axes.barh(place, width, left=left, height=0.6, color=colour, alpha=alpha)
            if width >= 6:
                middle, ink = left + width / 2, INK if name == "tie" else PAPER
                axes.text(middle, place, f"{width:.0f}", ha="center", va="center", color=ink)
            left += width
    axes.set_xlim(0, 100)
    axes.grid(visible=False)
    marks = [Line2D([], [], color=c, lw=6, alpha=alpha, label=name) for name, c, alpha in OUTCOMES]
    canvas.legend(figure, [], marks)
