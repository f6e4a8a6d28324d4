"""STEM data of permissive licence (SPEC 6.8): Open-Platypus-like files, and three of their parts.

A row's licence is its own field, else that of its part by stem.toml; a part's own files (SciBench,
OpenBookQA, PRM800K) say which they are by their fields.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from flywright.data.rows import placed_rows
from flywright.errors import UserError
from flywright.files import seed_from
from flywright.records import Conversation, Dialogue, Lineage, record_id
from flywright.settings import Settings, read_toml

_KNOWN = read_toml(Path(__file__).with_suffix(".toml"))
Row = dict[str, Any]


class StemSettings(Settings):
    """Which licences and parts are taken, and how much of each part."""

    licences: tuple[str, ...] = ("MIT", "Apache-2.0", "CC-BY-4.0", "CC0-1.0", "BSD-3-Clause")
    parts: tuple[str, ...] = Field(
        default=("MATH/PRM-800K", "scibench", "ARB", "openbookqa"), description="empty = all"
    )
    most: int = Field(default=100_000, ge=1, description="records of each part, drawn by seed")


def _read(row: Row) -> tuple[str, str, str]:
    """(part, question, answer) of a row. Raises KeyError or the like if it is of no known form."""
    if "data_source" in row:
        asked = "\n\n".join(filter(None, (row["instruction"], row.get("input"))))
        return row["data_source"], asked, row["output"]
    if "problem_text" in row:
        answer = f"The answer is {row['answer_number'].strip()} {row['unit'].strip()}".strip()
        worked = filter(None, (row.get("solution", "").strip(), answer))
        return "scibench", row["problem_text"].strip(), "\n\n".join(worked)
    if "choices" in row:
        listed = [f"{'ABCDEFGH'[n]}. {text}" for n, text in enumerate(row["choices"])]
        return "openbookqa", "\n".join([row["question"], *listed]), listed[row["gold"]]
    whole = row["is_solution"] and row["rating"] > 0
    steps = [*row["responses"], row["next_response"]] if whole else []
    return "MATH/PRM-800K", row["instruction"], "\n".join(steps)


def _left_out(part: str, licence: str, said: Sequence[str], settings: StemSettings) -> str:
    """Why a row is not taken, or an empty string."""
    if licence.casefold() not in map(str.casefold, settings.licences):
        return f"left out: licence {licence or 'unknown'}"
    if settings.parts and part not in settings.parts:
        return "left out: part not wanted"
    return "" if all(text.strip() for text in said) else "left out: no answer"


def stem(
    paths: Iterable[Path], settings: StemSettings, seed: int
) -> tuple[list[Dialogue], dict[str, Counter[str]]]:
    """The dialogues of the parts and licences wanted, and each part's counts.

    Raises UserError naming a row that is of no known form.
    """
    counts: dict[str, Counter[str]] = {}
    made: dict[str, dict[str, Dialogue]] = {}
    for where, row in (placed for path in paths for placed in placed_rows(path)):
        try:
            part, *said = _read(row)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise UserError(f"{where}: {error!r} in a row with {', '.join(row)}") from None
        licence = row.get("license") or row.get("licence") or _KNOWN["licences"].get(part, "")
        why = _left_out(part, licence, said, settings)
        counts.setdefault(part, Counter()).update(("in", why) if why else ("in",))
        if not why:
            by = "model" if part in _KNOWN["written_by_models"] else "human"
            unsure = part in _KNOWN["check_before_use"] and not row.get(
                "license", row.get("licence")
            )
            told = (f"licence {licence}" + ": check before use" * unsure,)
            lineage = Lineage(source=f"stem/{part}", answer_by=by, filters=told)
            name, talk = record_id("stem", part, *said), Conversation.of(*said)
            one = Dialogue(id=name, conversation=talk, task="stem", lineage=lineage)
            if name in made.setdefault(part, {}):
                counts[part]["left out: copy"] += 1
            made[part][name] = one
    kept = []
    for part, found in made.items():
        drawn = set(sorted(found, key=lambda name: seed_from(seed, name))[: settings.most])
        kept += [found[name] for name in found if name in drawn]
        counts[part]["out"] = len(drawn)
    return kept, counts
