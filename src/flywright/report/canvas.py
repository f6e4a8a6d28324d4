"""One look for all pictures: matplotlib figures that become SVG text in the page's own colours.

A figure is drawn with marker colours; in the SVG each becomes a CSS variable of the page, so that
one picture is right in light, in dark and in print. Hues are told apart by colour-blind readers.
"""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
BLUE, ORANGE, GREEN, RED, GREY = "#050505", "#060606", "#070707", "#080808", "#090909"
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "rule",
    PAPER: "paper",
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    RED: "red",
    GREY: "grey",
}
WIDTH_INCHES = 10.0

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be read, searched and follows the page
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "text.color": INK,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def turn_colour(turn: int) -> str:
    """The same colour for the same turn of the flywheel in every picture."""
    return (BLUE, BLUE, ORANGE, GREEN)[turn] if turn < 4 else GREY


@contextmanager
def styled(name: str) -> Iterator[None]:
    """matplotlib's settings while a picture of this name is drawn and saved."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        yield


def to_svg(figure: Figure, name: str, title: str) -> str:
    """The figure as SVG text to put into a page: scalable, in page colours, with its own ids."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def picture(name: str, title: str, height: float, draw: Callable[[Figure], None]) -> str:
    """Draw on a fresh figure, `height` inches high, and give its SVG. `title` is our own words."""
    with styled(name):
        figure = Figure(figsize=(WIDTH_INCHES, height))
        draw(figure)
        return to_svg(figure, name, title)


def panels(figure: Figure, count: int, columns: int, **kwargs: Any) -> list[Axes]:
    """`count` axes in rows of at most `columns`; the empty places of the grid are removed."""
    columns = min(columns, count)
    rows = -(-count // columns)
    grid = figure.subplots(rows, columns, squeeze=False, **kwargs).ravel().tolist()
    for spare in grid[count:]:
        spare.remove()
    return grid[:count]


def few_ticks(axes: Axes, x: int = 4, y: int = 4, whole_x: bool = False) -> None:
    """Only as many ticks as can be read."""
    axes.xaxis.set_major_locator(MaxNLocator(x, integer=whole_x))
    axes.yaxis.set_major_locator(MaxNLocator(y))


def turn_legend(figure: Figure, turns: list[int], extra: list[Line2D] | None = None) -> None:
    """One line for each turn, above all panels; nothing where there is nothing to tell apart."""
    marks = [
        Line2D([], [], color=turn_colour(t), marker="o", ms=4, label=f"turn {t}") for t in turns
    ]
    marks = (marks if len(turns) > 1 else []) + (extra or [])
    if marks:
        figure.legend(handles=marks, loc="outside upper right", ncols=len(marks))
