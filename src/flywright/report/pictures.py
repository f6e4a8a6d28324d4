"""The pictures of what was measured: from a Run's parts to SVG text; "" if nothing to draw."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from flywright.report.artifacts import STAGES, Evaluation, label, rank
from flywright.report.canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    PAPER,
    RED,
    few_ticks,
    panels,
    picture,
    turn_colour,
    turn_legend,
)
from flywright.report.cards import JudgeRow
from flywright.report.tables import Wins, is_share, metric_label, metric_names


def _draw_line(axes: Axes, rows: list[Evaluation], places: dict[str, int], metric: str) -> None:
    """One turn's own stages as points with intervals, joined by a line."""
    points = [(places[row.stage], row.metrics[metric]) for row in rows if metric in row.metrics]
    if not points:
        return
    scale = 100.0 if is_share(metric, rows) else 1.0
    colour = turn_colour(rows[0].turn)
    shift = 0.1 * (rows[0].turn - 1)
    x = [place + shift for place, _ in points]
    y = [scale * (value["mean"] or 0.0) for _, value in points]
    axes.plot(x, y, color=colour, lw=1.8, marker="o", ms=4.5, zorder=3)
    for place, (_, value) in zip(x, points, strict=True):
        if value["low"] is not None and value["high"] is not None:
            ends = (scale * value["low"], scale * value["high"])
            axes.vlines(place, *ends, color=colour, lw=1.4, alpha=0.55)


def stages(evaluations: list[Evaluation]) -> str:
    """Each metric through the stages, with 95 % intervals; dashed: a model from outside."""
    names = metric_names(evaluations)[:4]
    ours = [row for row in evaluations if row.ours]
    if not names or not ours:
        return ""
    order = sorted({row.stage for row in ours}, key=lambda name: rank(name, STAGES, 99))
    places = {stage: index for index, stage in enumerate(order)}
    outside = [row for row in evaluations if not row.ours]
    turns = sorted({row.turn for row in ours})

    def draw(figure: Figure) -> None:
        for axes, metric in zip(panels(figure, len(names), 2), names, strict=True):
            share = is_share(metric, evaluations)
            for turn in turns:
                _draw_line(axes, [row for row in ours if row.turn == turn], places, metric)
            for row in outside:
                if metric in row.metrics:
                    mean = (row.metrics[metric]["mean"] or 0.0) * (100 if share else 1)
                    axes.axhline(mean, color=GREY, lw=1.2, ls=(0, (4, 3)), zorder=1)
            axes.set_title(metric_label(metric))
            axes.set_ylabel("% of items" if share else "mean")
            few_ticks(axes)
            axes.set_xticks(range(len(order)), [label(s).replace(" SFT", "\nSFT") for s in order])
            axes.grid(axis="x", visible=False)
        names_outside = sorted({label(row.stage) for row in outside})
        dashes = [Line2D([], [], color=GREY, ls="--", label=name) for name in names_outside]
        turn_legend(figure, turns, dashes)

    rows = -(-len(names) // 2)
    return picture("stages", "Metrics by stage with intervals", 0.4 + 2.3 * rows, draw)


def _grid_of(evaluations: list[Evaluation], figure: Figure) -> dict[tuple[int, str], Axes]:
    """Axes for each (turn, stage): a column a turn, a row a stage."""
    turns = sorted({row.turn for row in evaluations})
    order = sorted({row.stage for row in evaluations}, key=lambda name: rank(name, STAGES, -1))
    grid = figure.subplots(len(order), len(turns), squeeze=False, sharex=True)
    cells = {}
    there = {(row.turn, row.stage) for row in evaluations}
    for y, stage in enumerate(order):
        for x, turn in enumerate(turns):
            if (turn, stage) in there:
                cells[turn, stage] = grid[y][x]
            else:
                grid[y][x].set_axis_off()
            if y == 0:
                grid[y][x].set_title(f"Turn {turn}")
    return cells


def rewards(evaluations: list[Evaluation]) -> str:
    """Histogram of the items' rewards, a row for each stage; the line marks the mean."""
    rows = [row for row in evaluations if row.scores.get("reward")]
    if not rows:
        return ""
    everything = np.concatenate([list(row.scores["reward"].values()) for row in rows])
    low, high = np.quantile(everything, [0.002, 0.998])
    bins = np.linspace(low, high if high > low else low + 1, 33)

    def draw(figure: Figure) -> None:
        cells = _grid_of(rows, figure)
        for row in rows:
            axes = cells[row.turn, row.stage]
            values = np.clip(list(row.scores["reward"].values()), bins[0], bins[-1])
            colour = turn_colour(row.turn) if row.ours else GREY
            counts, _ = np.histogram(values, bins)
            axes.stairs(counts / len(values), bins, fill=True, color=colour, alpha=0.75)
            axes.set_ylim(bottom=0)
            axes.axvline(float(np.mean(values)), color=INK, lw=1.2)
            axes.set_ylabel(label(row.stage), rotation=0, ha="right", va="center")
            axes.set_yticks([])
            axes.grid(axis="y", visible=False)
            axes.spines["left"].set_visible(False)
        for axes in figure.axes[-len({row.turn for row in rows}) :]:
            axes.set_xlabel("reward, weighted sum")

    height = 0.5 + 0.52 * len({row.stage for row in rows})
    return picture("rewards", "Reward distribution by stage", height, draw)


def lengths(evaluations: list[Evaluation]) -> str:
    """Words in an answer by stage: median, middle half (box) and 5th to 95th percentile."""
    rows = [row for row in evaluations if row.answers]
    if not rows:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        names = [f"{label(row.stage)}, turn {row.turn}" for row in rows]
        for place, row in enumerate(rows):
            words = [len(answer.split()) for answer in row.answers.values()]
            colour = turn_colour(row.turn) if row.ours else GREY
            far_low, low, middle, high, far_high = np.quantile(words, [0.05, 0.25, 0.5, 0.75, 0.95])
            axes.hlines(place, far_low, far_high, color=colour, lw=1.2)
            axes.barh(place, high - low, left=low, height=0.5, color=colour, alpha=0.55)
            axes.plot([middle] * 2, [place - 0.25, place + 0.25], color=INK, lw=1.6)
        axes.set_yticks(range(len(rows)), names)
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("words in an answer")

    return picture("lengths", "Answer length by stage", 0.6 + 0.26 * len(rows), draw)


def judges(rows: list[JudgeRow]) -> str:
    """Agreement of each judge with the truth; the dashed line is chance."""
    if not rows:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            axes.barh(place, 100 * row.accuracy, height=0.55, color=BLUE, alpha=0.8)
            count = f" (n = {row.n:,})" if row.n else ""
            words = f"{100 * row.accuracy:.1f} %{count} {row.note}"
            axes.text(100 * row.accuracy + 1, place, words, va="center", color=MUTED)
        axes.axvline(50, color=GREY, lw=1.2, ls=(0, (4, 3)))
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, 125)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("% of pairs decided as the truth does")

    return picture("judges", "Accuracy of the judges", 0.6 + 0.32 * len(rows), draw)


def _bar(axes: Axes, place: int, row: Wins) -> None:
    """Win, tie and loss of one metric as one bar of 100 %."""
    left, items = 0.0, row.win + row.tie + row.loss
    parts: list[tuple[int, str, dict[str, Any]]] = [
        (row.win, GREEN, {"alpha": 0.85}),
        (row.tie, GREY, {"alpha": 0.4}),
        (row.loss, RED, {"alpha": 0.85}),
    ]
    for count, colour, kwargs in parts:
        width = 100 * count / items
        axes.barh(place, width, left=left, height=0.6, color=colour, **kwargs)
        if width >= 6:
            ink = INK if colour == GREY else PAPER
            axes.text(left + width / 2, place, f"{width:.0f}", ha="center", va="center", color=ink)
        left += width


def wins(rows: list[Wins]) -> str:
    """Win, tie and loss of the last stage against General SFT on the same items."""
    if not rows:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            _bar(axes, place, row)
        names = [
            f"{metric_label(row.metric)}, {row.last}, turn {row.turn} "
            f"(n = {row.win + row.tie + row.loss})"
            for row in rows
        ]
        axes.set_yticks(range(len(rows)), names)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.grid(visible=False)
        axes.set_xlabel("% of items")
        marks = [
            Line2D([], [], color=colour, lw=6, alpha=alpha, label=name)
            for name, colour, alpha in (
                ("win", GREEN, 0.85),
                ("tie", GREY, 0.4),
                ("loss", RED, 0.85),
            )
        ]
        figure.legend(handles=marks, loc="outside upper right", ncols=3)

    return picture("wins", "Last stage against General SFT", 0.9 + 0.32 * len(rows), draw)
