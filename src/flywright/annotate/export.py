"""From labels to records: ratings.jsonl, comparisons.jsonl and summary.json."""

from pathlib import Path
from typing import Any

from flywright.annotate.aggregate import aggregate_ratings, preferred
from flywright.annotate.store import everything
from flywright.errors import UserError
from flywright.files import atomic_folder, write_json
from flywright.records import Comparison, Dialogue, write_jsonl

FILES = {"ratings.jsonl", "comparisons.jsonl", "summary.json"}


def export(db_path: Path, folder: Path) -> dict[str, Any]:
    """Write the three files into `folder`, whole or not at all; returns the summary.

    Raises UserError if there is no such database, or if the folder holds anything else.
    """
    if not db_path.is_file():
        raise UserError(f"{db_path}: no such file; import items first")
    if folder.exists() and {path.name for path in folder.iterdir()} - FILES:
        raise UserError(f"{folder}: holds other files, and an export replaces the whole folder")
    rows = everything(db_path)
    rated = [(item, labels) for item, labels in rows if isinstance(item, Dialogue)]
    ratings, dropped = aggregate_ratings(rated)
    judged = [preferred(item, labels) for item, labels in rows if isinstance(item, Comparison)]
    comparisons = [comparison for comparison in judged if comparison is not None]
    summary = {
        "ratings": len(ratings),
        "ratings_dropped": dict(sorted(dropped.items())),
        "comparisons": len(comparisons),
    }
    with atomic_folder(folder) as out:
        write_jsonl(out / "ratings.jsonl", ratings)
        write_jsonl(out / "comparisons.jsonl", comparisons)
        write_json(out / "summary.json", summary)
    return summary
