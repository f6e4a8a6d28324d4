"""STEM data of permissive licence (SPEC 6.8): Open-Platypus-like files, and four of their parts.

A row's licence is its own field, else that of its part by stem.toml; a part's own files (SciBench,
TheoremQA, OpenBookQA, PRM800K) say which they are by their fields.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from flywright.data.rows import placed_rows
from flywright.errors import UserError
from flywright.files import seed_from
from flywright.records import Conversation, Dialogue, Lineage, record_id
from flywright.settings import Settings, read_toml

LICENCES: dict[str, str] = read_toml(Path(__file__).with_suffix(".toml"))["licences"]
Row = dict[str, Any]


class StemSettings(Settings):
    """Which licences and parts are taken, and how much of each part."""

    licences: tuple[str, ...] = ("MIT", "Apache-2.0", "CC-BY-4.0", "CC0-1.0", "BSD-3-Clause")
    parts: tuple[str, ...] = Field(
        default=("MATH/PRM-800K", "scibench", "ARB", "openbookqa"), description="empty = all"
    )
    most: int = Field(default=100_000, ge=1, description="records of each part, drawn by seed")


def _platypus(row: Row) -> tuple[str, str, str]:
    asked = "\n\n".join(part for part in (row["instruction"], row.get("input", "")) if part)
    return row["data_source"], asked, row["output"]


def _scibench(row: Row) -> tuple[str, str, str]:
    unit = row.get("unit", "").strip()
    answer = f"The answer is {row['answer_number'].strip()} {unit}".strip()
    worked = str(row.get("solution", "")).strip()
    return "scibench", row["problem_text"].strip(), "\n\n".join(filter(None, (worked, answer)))


def _openbookqa(row: Row) -> tuple[str, str, str]:
    lines = [f"{'ABCDEFGH'[n]}. {text}" for n, text in enumerate(row["choices"])]
    answer = f"{'ABCDEFGH'[row['gold']]}. {row['choices'][row['gold']]}"
    return "openbookqa", "\n".join([row["question"], *lines]), answer


def _prm(row: Row) -> tuple[str, str, str]:
    whole = row["is_solution"] and row["rating"] > 0
    return (
        "MATH/PRM-800K",
        row["instruction"],
        "\n".join([*row["responses"], row["next_response"]] if whole else []),
    )


_FORMS: dict[str, Callable[[Row], tuple[str, str, str]]] = {
    "data_source": _platypus,
    "problem_text": _scibench,
    "choices": _openbookqa,
    "next_response": _prm,
    "Question": lambda row: ("theoremqa", row["Question"], f"The answer is {row['Answer']}"),
}


def _read(paths: Iterable[Path]) -> Iterator[tuple[str, str, str, str]]:
    """(part, licence, question, answer) of each row. Raises UserError at one of no known form."""
    for path in paths:
        for where, row in placed_rows(path):
            form = next((form for key, form in _FORMS.items() if key in row), None)
            if form is None:
                raise UserError(
                    f"{where}: its keys are {', '.join(row)}; one of {', '.join(_FORMS)}"
                )
            try:
                part, asked, answer = form(row)
            except (KeyError, TypeError, AttributeError, IndexError) as error:
                raise UserError(f"{where}: {error!r} in a row with {', '.join(row)}") from None
            own = row.get("license") or row.get("licence")
            yield part, own or LICENCES.get(part, ""), asked, answer


def stem(
    paths: Iterable[Path], settings: StemSettings, seed: int
) -> tuple[list[Dialogue], dict[str, dict[str, int]]]:
    """The dialogues of the parts and licences wanted, in file order, and each part's counts."""
    counts: dict[str, Counter[str]] = {}
    made: dict[str, dict[str, Dialogue]] = {}
    for part, licence, asked, answer in _read(paths):
        found = counts.setdefault(part, Counter())
        found["in"] += 1
        if licence.casefold() not in map(str.casefold, settings.licences):
            found[f"left out: licence {licence or 'unknown'}"] += 1
        elif settings.parts and part not in settings.parts:
            found["left out: part not wanted"] += 1
        elif not (asked.strip() and answer.strip()):
            found["left out: no answer"] += 1
        else:
            lineage = Lineage(
                source=f"stem/{part}", answer_by="human", filters=(f"licence {licence}",)
            )
            name = record_id("stem", part, asked, answer)
            talk = Conversation.of(asked, answer)
            made.setdefault(part, {})[name] = Dialogue(
                id=name, conversation=talk, task="stem", lineage=lineage
            )
    kept = []
    for part, found in made.items():
        drawn = sorted(found, key=lambda name: seed_from(seed, name))[: settings.most]
        kept += [dialogue for name, dialogue in found.items() if name in set(drawn)]
        counts[part]["out"] = len(drawn)
    return kept, {part: dict(found) for part, found in counts.items()}
