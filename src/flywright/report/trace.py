"""Where one record came from and what came from it: `flywright trace DIR RECORD_ID`.

Walks `lineage.parents` backward and forward over every JSONL file of the run's finished steps.
A parent is a record, a document's beginning, a template, or the words that a prompt was asked with.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from flywright.errors import UserError
from flywright.records import record_id
from flywright.report.artifacts import Step, read_steps

WIDTH = 96  # characters of a text that are shown
VOTES = {1: "the first", -1: "the second", 0: "neither"}


@dataclass
class Index:
    """All records of a run by id, where each lies ("step@version/file.jsonl:line"), its children.

    `scored` has a line of text for each evaluated item.
    """

    steps: list[Step]
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    children: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    scored: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, place: str, value: dict[str, Any]) -> None:
        """File one line under its id, and under its parents when it is first met."""
        name = value["id"]
        if "metric" in value:
            score = f"{value['metric']} {value['score']:.3g}"
            self.scored[name].append(f"  {place}  {score}  “{_short(value['answer'])}”")
            return
        self.places[name].append(place)
        if name not in self.records:
            self.records[name] = value
            for parent in self.parents(name):
                self.children[parent].append(name)

    def parents(self, name: str) -> list[str]:
        """Ids of the records it was made from."""
        return self.records[name]["lineage"].get("parents", [])

    def walk(self, name: str, up: bool, depth: int, seen: set[str]) -> Iterator[str]:
        """Lines for ancestors (up) or descendants, depth first, each record once."""
        for other in self.parents(name) if up else self.children.get(name, []):
            if other in seen:
                continue
            seen.add(other)
            if other in self.records:
                words = f"{self.places[other][0]}  {_summary(self.records[other])}"
                yield f"{'  ' * depth}{other}  {words}"
                yield from self.walk(other, up, depth + 1, seen)
            else:
                yield f"{'  ' * depth}{self.foreign(other, name)}"

    @cached_property
    def documents(self) -> list[tuple[str, str]]:
        """(what and where, text) of all documents; they have no id of their own on disk."""
        return [
            (f"document of {value.get('source', '')}  {step.folder.name}/{place}", value["text"])
            for step in self.steps
            for place, value in step.lines("text")
        ]

    def foreign(self, name: str, child: str) -> str:
        """What a parent of `child` is that is no record of this run."""
        known = r"\S+@[0-9a-f]{8}|[0-9a-f]{12}"  # a template's name and hash, or a record's id
        if not re.fullmatch(known, name):
            words = [part for part in self.parents(child) if not re.fullmatch(known, part)]
            return f"{'topic' if name == words[0] else 'asked for'} “{name}”"
        if "@" in name:
            return f"{name}  template"
        said = str(self.records[child]["conversation"]["messages"][0]["content"])
        for what, text in self.documents:
            ends = range(len(text), 0, -1) if text[:20] in said else ()
            if any(record_id(text[:end]) == name for end in ends):  # it was cut to fit the prompt
                return f"{name}  {what}  “{_short(text)}”"
        return f"{name}  a record that was not kept: revised, a copy, or dropped"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= WIDTH else flat[: WIDTH - 1] + "…"


def _summary(record: dict[str, Any]) -> str:
    """What the record says."""
    if "chosen" in record:
        return f"“{_short(record['chosen'])}” preferred over “{_short(record['rejected'])}”"
    return f"“{_short(record['conversation']['messages'][-1]['content'])}”"


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    return f"{value:.3g}" if isinstance(value, float) else _short(str(value))


def _details(record: dict[str, Any]) -> Iterator[str]:
    """Who wrote it, how it was drawn, judged and filtered."""
    judged = {key: record[key] for key in record if key == "judge" or key.endswith("_reward")}
    for name, value in {**judged, **record["lineage"]}.items():
        if name not in ("parents", "verdicts"):
            yield f"{name.replace('_', ' ')}: {_said(value)}"
    for verdict in record["lineage"].get("verdicts", []):
        yield f"vote of {verdict['judge']}: {VOTES[verdict.get('preference', 0)]}"


def trace(run_dir: Path, name: str) -> list[str]:
    """Lines that tell a record's whole way: what it is, what it came from, what came from it.

    Raises UserError if the run has no record of that id.
    """
    steps = read_steps(run_dir)
    index = Index(steps)
    for step in steps:
        for place, value in step.lines():
            index.add(f"{step.folder.name}/{place}", value)
    became = list(index.walk(name, False, 1, {name}))
    if name not in index.records:
        if not became:
            raise UserError(f"record id {name!r} is in no JSONL file of this run")
        return [index.foreign(name, index.children[name][0]), "what came from it", *became]
    record, came_from = index.records[name], list(index.walk(name, True, 1, {name}))
    homes = {place.partition("@")[0] for place in index.places[name]}
    readers = [step.name for step in steps if homes & step.manifest["inputs"].keys()]
    became += [f"  step {reader} read it" for reader in readers]
    became += index.scored.get(name, [])
    return [
        f"{name}  {index.places[name][0]}",
        *(f"  {text}" for text in (_summary(record), *_details(record))),
        *("came from", *(came_from or ["  nothing earlier in this run"])),
        *("what came from it", *(became or ["  nothing yet"])),
    ]
