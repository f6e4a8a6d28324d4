"""Where one record came from and what came from it: `flywright trace DIR RECORD_ID`.

Walks `lineage.parents` backward and forward over every JSONL file of the run's finished steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flywright.errors import UserError
from flywright.records import parse_lines
from flywright.report.artifacts import Run, Step
from flywright.report.made import NOT_RECORDS
from flywright.report.read import read_steps

WIDTH = 96  # characters of a text that are shown


@dataclass(frozen=True)
class Found:
    """One line of a JSONL file that holds a record."""

    step: Step
    file: str
    line: int
    value: dict[str, Any]

    @property
    def parents(self) -> list[str]:
        """Ids of the records it was made from."""
        lineage = self.value.get("lineage")
        return [str(name) for name in lineage.get("parents", ())] if lineage else []

    @property
    def place(self) -> str:
        """step/file:line, as it lies below steps/."""
        return f"{self.step.folder.name}/{self.file}:{self.line}"


@dataclass
class Index:
    """All records of a run by id, with their children and their evaluations."""

    steps: list[Step]
    by_id: dict[str, list[Found]] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=dict)
    scored: dict[str, list[Found]] = field(default_factory=dict)

    def add(self, found: Found) -> None:
        """File one line under its id and under its parents."""
        name = str(found.value["id"])
        if "lineage" not in found.value:
            self.scored.setdefault(name, []).append(found)
            return
        self.by_id.setdefault(name, []).append(found)
        for parent in found.parents:
            siblings = self.children.setdefault(parent, [])
            if name not in siblings:
                siblings.append(name)

    def resolve(self, name: str) -> str:
        """The full id for an id or its unambiguous beginning. Raises UserError otherwise."""
        known = self.by_id | self.scored
        matches = [name] if name in known else sorted(i for i in known if i.startswith(name))
        if len(matches) == 1:
            return matches[0]
        what = f"begins {len(matches)} records" if matches else "is in no JSONL file of this run"
        raise UserError(f"record id {name!r} {what}")


def build_index(run_dir: Path) -> Index:
    """Read every JSONL line with an id from the run's finished steps."""
    steps = read_steps(run_dir)
    index = Index(steps)
    for step in steps:
        for path in sorted(step.folder.rglob("*.jsonl")):
            if path.name in NOT_RECORDS and path.name != "items.jsonl":
                continue
            file = str(path.relative_to(step.folder))
            for line, value in parse_lines(path):
                if isinstance(value, dict) and "id" in value:
                    index.add(Found(step, file, line, value))
    return index


def _short(text: Any) -> str:
    flat = " ".join(str(text).split())
    return flat if len(flat) <= WIDTH else flat[: WIDTH - 1] + "…"


def _summary(found: Found) -> str:
    """One line: what the record says."""
    value = found.value
    if "chosen" in value and "rejected" in value:
        return f"“{_short(value['chosen'])}” preferred over “{_short(value['rejected'])}”"
    conversation = value.get("conversation")
    messages = conversation.get("messages", []) if isinstance(conversation, dict) else []
    text = messages[-1].get("content", "") if messages else value.get("text", "")
    return f"“{_short(text)}”"


def _details(value: dict[str, Any]) -> Iterator[str]:
    """Who wrote it, how it was drawn, judged and filtered."""
    lineage = value.get("lineage") or {}
    if value.get("judge"):
        yield f"judged by {value['judge']}"
    for side in ("chosen", "rejected"):
        if value.get(f"{side}_reward") is not None:
            yield f"reward of the {side} answer {value[f'{side}_reward']:.3g}"
    for key, words in (
        ("source", "source"),
        ("answer_by", "answer written by a"),
        ("model", "model"),
        ("sampling", "sampling"),
        ("template", "template"),
        ("seed", "seed"),
    ):
        if lineage.get(key):
            yield f"{words} {_short(lineage[key])}"
    for name, score in (lineage.get("scores") or {}).items():
        yield f"score {name} = {score:.3g}"
    votes = {1: "the first", -1: "the second", 0: "neither"}
    for verdict in lineage.get("verdicts") or ():
        vote = votes.get(verdict.get("preference", 0), "neither")
        yield f"vote of {verdict.get('judge', '?')}: {vote}"
    if lineage.get("filters"):
        yield "passed " + ", ".join(map(str, lineage["filters"]))


def _line(index: Index, name: str, depth: int) -> str:
    indent = "  " * depth
    if name not in index.by_id:
        return f"{indent}{name}  (not a record of this run)"
    found = index.by_id[name][0]
    return f"{indent}{name}  {found.place}  {_summary(found)}"


def _walk(index: Index, name: str, up: bool, depth: int, seen: set[str]) -> Iterator[str]:
    """Lines for ancestors (up) or descendants, depth first, each record once."""
    ahead = index.by_id[name][0].parents if up else index.children.get(name, [])
    for other in ahead:
        if other in seen:
            continue
        seen.add(other)
        yield _line(index, other, depth)
        if other in index.by_id:
            yield from _walk(index, other, up, depth + 1, seen)


def _readers(index: Index, name: str) -> list[str]:
    """Steps whose manifest names a step that holds this record as an input."""
    homes = {found.step.name for found in index.by_id.get(name, [])}
    return [step.name for step in index.steps if homes & set(step.manifest.get("inputs") or ())]


def trace(run_dir: Path, record_id: str) -> list[str]:
    """Lines that tell a record's whole way: what it is, what it came from, what came from it.

    `record_id` may be the unambiguous beginning of an id. Raises UserError if there is none.
    """
    return trace_lines(build_index(Path(run_dir)), record_id)


def trace_lines(index: Index, record_id: str) -> list[str]:
    """`trace` over an index that was already built."""
    name = index.resolve(record_id)
    lines = []
    for number, found in enumerate(index.by_id.get(name, [])):
        lines.append(f"{name}  {found.place}")
        if number == 0:
            lines += [f"  {_summary(found)}", *(f"  {text}" for text in _details(found.value))]
    if name in index.by_id:
        came_from = list(_walk(index, name, True, 1, {name}))
        lines += ["came from", *(came_from or ["  nothing earlier in this run"])]
    became = list(_walk(index, name, False, 1, {name})) if name in index.by_id else []
    became += [f"  step {step} read it" for step in _readers(index, name)]
    for found in index.scored.get(name, []):
        value = found.value
        score = f"{value.get('metric', 'score')} {value.get('score')}"
        became.append(f"  {found.place}  {score}: “{_short(value.get('answer', ''))}”")
    return [*lines, "what came from it", *(became or ["  nothing yet"])]


def example(run: Run, record_id: str) -> list[str]:
    """The trace of one record for the page; no lines where there is no record."""
    return trace(run.folder, record_id) if record_id else []
