"""One look for all pictures: matplotlib figures that become SVG text in the page's own colours.

A figure is drawn with marker colours; in the SVG each becomes a CSS variable of the page, so that
one picture is right in light, in dark and in print. Hues are told apart by colour-blind readers.
"""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

VARIABLES = ("ink", "muted", "rule", "paper", "blue", "orange", "green", "red", "grey")
MARKERS = tuple(f"#01010{index}" for index in range(len(VARIABLES)))  # in page.mplstyle too
BLUE, ORANGE, GREEN, GREY = (MARKERS[index] for index in (4, 5, 6, 8))
STYLE = Path(__file__).with_name("page.mplstyle")


def picture(title: str) -> Callable[[Callable[[Figure, list[Any]], None]], Callable[[list], str]]:
    """Mark a function that draws rows on an empty figure: it gives SVG, "" if it drew nothing."""

    def mark(draw: Callable[[Figure, list[Any]], None]) -> Callable[[list], str]:
        def drawn(rows: list) -> str:
            name = draw.__name__
            with matplotlib.rc_context({"svg.hashsalt": name}, STYLE):
                figure = Figure()
                draw(figure, rows)
                return _svg(figure, name, title) if figure.axes else ""

        return drawn

    return mark


def _svg(figure: Figure, name: str, title: str) -> str:
    """The figure as SVG text to put into a page: scalable, in page colours, with its own ids."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[^"]*"', "", svg, count=2)  # the root's: the page decides
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", svg)
    for colour, variable in zip(MARKERS, VARIABLES, strict=True):
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def turn_colour(turn: int) -> str:
    """The same colour for the same turn of the flywheel in every picture."""
    return (BLUE, BLUE, ORANGE, GREEN)[turn] if turn < 4 else GREY


def panels(figure: Figure, count: int, columns: int, row_inches: float) -> list[Axes]:
    """`count` axes in rows of at most `columns`; the empty places of the grid are removed."""
    rows = -(-count // columns)
    figure.set_figheight(0.4 + row_inches * rows)
    grid = figure.subplots(rows, min(columns, count), squeeze=False).ravel().tolist()
    for spare in grid[count:]:
        spare.remove()
    return grid[:count]


def few_ticks(axes: Axes, x: int = 4) -> None:
    """Only as many ticks as can be read; whole numbers below, for they count optimizer steps."""
    axes.xaxis.set_major_locator(MaxNLocator(x, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))


def legend(figure: Figure, turns: list[int], extra: list[Line2D] | None = None) -> None:
    """One mark for each turn, above all panels; nothing where there is nothing to tell apart."""
    marks = [
        Line2D([], [], color=turn_colour(t), marker="o", ms=4, label=f"turn {t}") for t in turns
    ]
    marks = (marks if len(turns) > 1 else []) + (extra or [])
    if marks:
        figure.legend(handles=marks, loc="outside upper right", ncols=len(marks))
