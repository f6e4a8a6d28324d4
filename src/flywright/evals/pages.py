"""What people read of an evaluation: a section for the model card, and a page of failures.

Everything comes from the result folders alone, so that both can be made again at any time.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flywright.data.rows import read_rows
from flywright.evals.items import Item
from flywright.evals.run import ITEMS, RESULTS
from flywright.files import read_json
from flywright.records import read_jsonl

CARD, REPORT, WORDS = "card.md", "report.html", "words.jsonl"
MOST_SHOWN = 40  # failures of a task on the page


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    kept: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True}
    kept["autoescape"] = lambda name: name == "report.jinja"  # its texts are foreign
    return Environment(loader=loader, undefined=StrictUndefined, **kept)


def card(entries: Mapping[str, Any]) -> str:
    """Markdown with the protocol of each number, and the results block that the hub reads."""
    return _environment().get_template("card.jinja").render(tasks=entries)


def report(folders: Sequence[Path]) -> str:
    """One page: every number, and problems that not all of the folders' models got right."""
    found = {str(folder): read_json(folder / RESULTS) for folder in folders}
    names = list(dict.fromkeys(name for results in found.values() for name in results))
    failures = {name: _failures(folders, name) for name in names}
    page = _environment().get_template("report.jinja")
    return page.render(found=found, names=names, failures=failures, most=MOST_SHOWN)


def _failures(folders: Sequence[Path], name: str) -> dict[str, Any]:
    """{"count", "rows": [{id, words, truth, answers: one a folder}]} of the first metric."""
    items = [_first_items(folder / name) for folder in folders]
    keys = list(dict.fromkeys(key for found in items for key in found))
    wrong = [key for key in keys if any(key in one and one[key].score < 1 for one in items)]
    words: dict[str, str] = {}
    if (path := folders[0] / name / WORDS).exists():
        words = {row["id"]: row["words"] for row in read_rows(path)}
    rows = []
    for key in wrong[:MOST_SHOWN]:
        truth = next(one[key].truth for one in items if key in one)
        answers = [one.get(key) for one in items]
        rows.append({"id": key, "words": words.get(key, ""), "truth": truth, "answers": answers})
    return {"count": len(wrong), "of": len(keys), "rows": rows}


def _first_items(folder: Path) -> dict[str, Item]:
    """The items that carry the answers, by id: those of the task's first metric."""
    if not (folder / ITEMS).exists():
        return {}
    items = list(read_jsonl(folder / ITEMS, Item))
    first = next((item.metric for item in items if item.answer), items[0].metric if items else "")
    return {item.id: item for item in items if item.metric == first}
