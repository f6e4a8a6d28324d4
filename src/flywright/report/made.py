"""What the data of each step was made of: sources, writers, judges, filters, from its records.

The records themselves are the witnesses (their `lineage`); a step's own account of what it dropped
comes from its manifest's facts.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flywright.records import ATTRIBUTES, parse_lines
from flywright.report.artifacts import Run, Step

DATA_STEPS = ("ratings", "prompts", "code", "dialogues", "comparisons")
SHARE_STEPS = ("code", "dialogues", "comparisons")  # what SFT and preference training read
NOT_RECORDS = ("items.jsonl", "metrics.jsonl", "ledger.jsonl", "items.partial.jsonl")


def shape(value: Any) -> str:
    """Which record a JSON object is: comparison, rating, dialogue, prompt, or "" for none."""
    if not isinstance(value, dict) or not isinstance(value.get("lineage"), dict):
        return ""
    conversation = value.get("conversation")
    messages = conversation.get("messages") if isinstance(conversation, dict) else None
    if not messages:
        return ""
    if "chosen" in value and "rejected" in value:
        return "comparison"
    if any(name in value for name in ATTRIBUTES):
        return "rating"
    return "dialogue" if messages[-1].get("role") == "assistant" else "prompt"


def record_files(step: Step) -> Iterator[Path]:
    """The JSONL files of a step that may hold records, in name order."""
    paths = (path for path in step.folder.rglob("*.jsonl") if path.name not in NOT_RECORDS)
    yield from sorted(paths)


def records(step: Step) -> Iterator[tuple[str, dict[str, Any]]]:
    """(shape, record) of each distinct record of a step: by shape and id, the first counts."""
    seen = set()
    for path in record_files(step):
        for line, value in parse_lines(path):
            kind = shape(value)
            if not kind:
                continue
            key = (kind, value.get("id", f"{path}:{line}"))
            if key not in seen:
                seen.add(key)
                yield kind, value


@dataclass
class Mix:
    """The make-up of one data step's records; every Counter counts records."""

    step: Step
    kinds: Counter = field(default_factory=Counter)
    sources: Counter = field(default_factory=Counter)
    tasks: Counter = field(default_factory=Counter)
    writers: Counter = field(default_factory=Counter)
    models: Counter = field(default_factory=Counter)
    judges: Counter = field(default_factory=Counter)
    filters: Counter = field(default_factory=Counter)
    files: Counter = field(default_factory=Counter)
    example_id: str = ""

    def add(self, kind: str, record: dict[str, Any]) -> None:
        """Count one record."""
        lineage = record["lineage"]
        self.kinds[kind] += 1
        self.sources[str(lineage.get("source") or "not stated")] += 1
        if record.get("task"):
            self.tasks[str(record["task"])] += 1
        if kind != "prompt":
            self.writers[str(lineage.get("answer_by") or "not stated")] += 1
        if lineage.get("model"):
            self.models[str(lineage["model"])] += 1
        if record.get("judge"):
            self.judges[str(record["judge"])] += 1
        self.filters.update(str(name) for name in lineage.get("filters", ()))
        if not self.example_id and lineage.get("parents"):
            self.example_id = str(record.get("id", ""))


def mixes(run: Run) -> list[Mix]:
    """The make-up of every finished data step, in the order of the road."""
    found = []
    for step in run.steps:
        if step.kind not in DATA_STEPS:
            continue
        mix = Mix(step)
        for kind, record in records(step):
            mix.add(kind, record)
        for path in record_files(step):
            mix.files[path.stem] = sum(1 for _, value in parse_lines(path) if shape(value))
        found.append(mix)
    return found


def synthetic_share(run: Run) -> float | None:
    """Share of SFT and preference records whose answer a model wrote; None before there are any.

    Dialogues and comparisons of all turns, each distinct record once; ratings are not among them
    (HOUSE section 7).
    """
    by_record: dict[tuple[str, str], bool] = {}
    for step in run.steps:
        if not step.turn or step.kind not in SHARE_STEPS:
            continue
        for index, (kind, record) in enumerate(records(step)):
            if kind in ("dialogue", "comparison"):
                key = (kind, str(record.get("id", f"{step.name}:{index}")))
                by_record[key] = record["lineage"].get("answer_by") == "model"
    return sum(by_record.values()) / len(by_record) if by_record else None
