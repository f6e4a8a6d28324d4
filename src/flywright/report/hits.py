"""Records that repeat benchmark items, for a person to judge: both texts side by side, in HTML."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape

from flywright.files import write_text

MOST = 500  # hits on one page; hits.jsonl has all
_WORD = re.compile(r"\w+")


def _marked(text: str, other: str) -> Markup:
    """The text, with the words that the other has too marked."""
    shared = {word.casefold() for word in _WORD.findall(other)}
    parts = re.split(r"(\w+)", text[:4000])
    return Markup("").join(
        Markup("<mark>{}</mark>").format(part) if part.casefold() in shared else escape(part)
        for part in parts
    )


def write_hits(
    path: Path,
    hits: Sequence[dict[str, Any]],
    coverage: Mapping[str, Mapping[str, int]],
    missing: Sequence[str] = (),
    methods: Sequence[str] = (),
) -> None:
    """The page: what was and could not be checked, then the hits, the sure ones first.

    coverage: benchmark -> {"items", method: how many of them it can check}.
    """
    folder = Path(__file__).parent
    pages = Environment(loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True)
    pages.filters["marked"] = _marked
    shown = sorted(hits, key=lambda hit: (not hit["sure"], -hit["share"]))
    values = {"coverage": coverage, "missing": missing, "methods": methods, "most": MOST}
    write_text(path, pages.get_template("hits.jinja").render(hits=shown, **values))
