"""From labels to records: ratings.jsonl, comparisons.jsonl, labels.jsonl and summary.json."""

from collections import Counter
from pathlib import Path
from typing import Any

from flywright.annotate.aggregate import aggregate_ratings, agreement, preferred
from flywright.annotate.labels import Item, PairLabel, RatingLabel
from flywright.annotate.store import everything
from flywright.errors import UserError
from flywright.files import atomic_folder, write_json
from flywright.records import Record, write_jsonl

FILES = {"ratings.jsonl", "comparisons.jsonl", "labels.jsonl", "summary.json"}


class SignedLabel(Record):
    """One label as it was given, for those who aggregate in their own way."""

    item: str
    annotator: str
    label: RatingLabel | PairLabel


def export(db_path: Path, folder: Path) -> dict[str, Any]:
    """Write the four files into `folder`, whole or not at all; returns the summary.

    Raises UserError if there is no such database, or if the folder holds anything else.
    """
    if not Path(db_path).is_file():
        raise UserError(f"{db_path}: no such file; import items first")
    folder = Path(folder)
    if folder.exists() and {path.name for path in folder.iterdir()} - FILES:
        raise UserError(f"{folder}: holds other files, and an export replaces the whole folder")
    rows = everything(db_path)
    rated = aggregate_ratings([r for r in rows if r[0].kind == "rating"])  # type: ignore[misc]
    compared: list[Any] = [row for row in rows if row[0].kind == "comparison"]
    comparisons = [found for row in compared if (found := preferred(*row)) is not None]
    summary = {
        "ratings": len(rated.kept),
        "ratings_dropped": dict(sorted(rated.dropped.items())),
        "kappa_all_labels": agreement(rated.all_labels),
        "kappa_kept_labels": agreement(rated.kept_labels),
        "comparisons": len(comparisons),
        "judgements": judgements(compared),
    }
    with atomic_folder(folder) as out:
        write_jsonl(out / "ratings.jsonl", rated.kept)
        write_jsonl(out / "comparisons.jsonl", comparisons)
        signed = [
            SignedLabel(item=item.id, annotator=who, label=label)
            for item, labels in rows
            for who, label in labels
        ]
        write_jsonl(out / "labels.jsonl", signed)
        write_json(out / "summary.json", summary)
    return summary


def judgements(rows: list[tuple[Item, list[tuple[str, PairLabel]]]]) -> dict[str, dict[str, Any]]:
    """For each pair of models: win, tie, loss and length perception, counted in judgements."""
    counts: dict[str, Counter[str]] = {}
    lengths: dict[str, dict[str, Counter[str]]] = {}
    for item, labels in rows:
        name = f"{item.first_model} against {item.second_model}"
        for _, label in labels:
            if label.first is None or label.second is None:
                continue
            outcome = {1: "win", 0: "tie", -1: "loss"}[label.preference]
            counts.setdefault(name, Counter())[outcome] += 1
            seen = ((item.first_model, label.first), (item.second_model, label.second))
            for model, view in seen:
                lengths.setdefault(name, {}).setdefault(model, Counter())[view.length] += 1
    return {
        name: {
            **{outcome: count[outcome] for outcome in ("win", "tie", "loss")},
            "length": {model: dict(seen) for model, seen in lengths[name].items()},
        }
        for name, count in counts.items()
    }
