"""Where one record came from and what came from it: `flywright trace DIR RECORD_ID`.

Walks `lineage.parents` backward and forward over every JSONL file of a run's finished steps, or of
any other folder. A parent is a record, a document's beginning, a template, or the words that a
prompt was asked with. Each call reads the files once; some 60 bytes a record stay in memory.
"""

import json
import re
from array import array
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from flywright.errors import UserError
from flywright.records import raw_lines, record_id
from flywright.report.artifacts import NOT_RECORDS, Step, read_steps

WIDTH = 96  # characters of a text that are shown
VOTES = {1: "the first", -1: "the second", 0: "neither"}
KNOWN = r"\S+@[0-9a-f]{8}|[0-9a-f]{12}"  # a template's name and hash, or a record's id
Walked = tuple[int, str, str]  # depth, id, what it is
Who = tuple[str, str, str, str, tuple[str, ...]]  # model, of the rejected, template, source, judges


def record_files(folder: Path) -> tuple[list[tuple[str, Path]], list[Step]]:
    """((label, path) of each JSONL file that may hold records, the finished steps of a run)."""
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder")
    if (folder / "steps").is_dir():
        steps = read_steps(folder)
        named = [
            (f"{s.folder.name}/{p.name}", p) for s in steps for p in sorted(s.folder.iterdir())
        ]
    else:
        steps, named = [], [(str(p.relative_to(folder)), p) for p in sorted(folder.rglob("*"))]
    return [
        (label, path)
        for label, path in named
        if path.suffix == ".jsonl"
        and not path.name.endswith((*NOT_RECORDS, "hits.jsonl"))
        and not path.parent.match("*.work/shards")  # pieces of what lies beside
    ], steps


def rows(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(line number, offset, object) of each line that holds one. Raises UserError."""
    for number, offset, raw in raw_lines(path):
        try:
            value = _loaded(raw)
        except ValueError as error:
            raise UserError(f"{path}:{number}: not valid JSON ({error})") from None
        if isinstance(value, dict):
            yield number, offset, value


def _loaded(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except ValueError:
        return json.loads(raw)  # which takes half a surrogate pair, as models write them


def _who(record: dict[str, Any]) -> Who:
    lineage = record["lineage"]
    judges = [verdict["judge"] for verdict in lineage.get("verdicts", ())]
    judges += [name.partition(" by ")[2] for name in lineage.get("filters", ())]
    wrote = lineage.get("model", ""), record.get("rejected_model", "")
    return (
        *wrote,
        lineage.get("template", ""),
        lineage.get("source", ""),
        tuple(filter(None, judges)),
    )


class Index:
    """All records below a folder by id, where each lies ("step@version/file.jsonl:line"), and what
    was made of what."""

    def __init__(self, folder: Path):
        self.files, self.steps = record_files(folder)
        self.whose: list[Who] = []
        known: dict[Who, int] = {}
        columns = {name: array(kind) for name, kind in zip("ifloswpc", "qIIQBIqI", strict=True)}
        for number, (_, path) in enumerate(self.files):
            for line, offset, value in rows(path):
                value = value["record"] if "reason" in value and "record" in value else value
                if not isinstance(name := value.get("id"), str):
                    continue
                scored = "metric" in value
                if not scored and not {"lineage", "conversation"} <= value.keys():
                    continue
                try:
                    who = ("", "", "", "", ()) if scored else _who(value)
                except (AttributeError, KeyError, TypeError):
                    raise UserError(f"{path}:{line}: not a record: its lineage") from None
                row = (hash(name), number, line, offset, scored, known.setdefault(who, len(known)))
                for key, part in zip("iflosw", row, strict=True):
                    columns[key].append(part)
                for parent in () if scored else value["lineage"].get("parents", ()):
                    columns["p"].append(hash(parent))
                    columns["c"].append(len(columns["i"]) - 1)
        self.whose = list(known)
        made = {key: np.array(column) for key, column in columns.items()}
        self.ids, self.file, self.scored, self.who = (made[key] for key in "ifsw")
        self._line, self._offset = made["l"], made["o"]
        self._by_id = np.argsort(self.ids, kind="stable")
        order = np.argsort(made["p"], kind="stable")
        self.parent, self.child = made["p"][order], made["c"][order]

    def found(self, name: str, scored: bool = False) -> list[int]:
        """The rows of that id, in file order: of the record, or of its evaluated items."""
        low, high = (
            np.searchsorted(self.ids, hash(name), s, self._by_id) for s in ("left", "right")
        )
        return [int(row) for row in self._by_id[low:high] if self.scored[row] == scored]

    def row(self, row: int) -> dict[str, Any]:
        """The object of one row, read from its file."""
        with self.files[self.file[row]][1].open("rb") as stream:
            stream.seek(self._offset[row])
            value = _loaded(stream.readline())
        return value["record"] if "reason" in value and "record" in value else value

    def offsets(self, file: int) -> np.ndarray:
        """Where the rows of one file begin in it, in bytes."""
        return self._offset[self.file == file]

    def place(self, row: int) -> str:
        """Where a row lies."""
        return f"{self.files[self.file[row]][0]}:{self._line[row]}"

    @lru_cache(maxsize=4096)  # noqa: B019 - an index lives as long as one command
    def record(self, name: str) -> dict[str, Any] | None:
        """The record of that id as it is first met."""
        return next((self.row(row) for row in self.found(name)), None)

    def parents(self, name: str) -> list[str]:
        """Ids of the records it was made from."""
        record = self.record(name)
        return record["lineage"].get("parents", []) if record else []

    def children(self, name: str) -> list[str]:
        """Ids of the records that were made of it."""
        low, high = (np.searchsorted(self.parent, hash(name), s) for s in ("left", "right"))
        made = [self.row(row)["id"] for row in sorted(self.child[low:high])]
        return list(dict.fromkeys(made))

    def walk(self, name: str, up: bool) -> Iterator[Walked]:
        """Ancestors (up) or descendants, depth first, each record once."""
        following, seen = self.parents if up else self.children, {name}
        waiting = [(1, other, name) for other in reversed(following(name))]
        while waiting:
            depth, other, near = waiting.pop()
            if other in seen:
                continue
            seen.add(other)
            if record := self.record(other):
                yield depth, other, f"{self.place(self.found(other)[0])}  {_summary(record)}"
                waiting += [(depth + 1, one, other) for one in reversed(following(other))]
            else:
                yield depth, other, self.foreign(other, near)

    @cached_property
    def documents(self) -> list[tuple[str, str]]:
        """(what and where, text) of all documents; they have no id of their own on disk."""
        return [
            (f"document of {value.get('source', '')}  {label}:{line}", value["text"])
            for label, path in self.files
            for line, _, value in rows(path)
            if "text" in value and "id" not in value
        ]

    def foreign(self, name: str, child: str) -> str:
        """What a parent of `child` is that is no record here."""
        if not re.fullmatch(KNOWN, name):
            words = [part for part in self.parents(child) if not re.fullmatch(KNOWN, part)]
            return f"{'topic' if name == words[0] else 'asked for'} “{name}”"
        if "@" in name:
            return "template"
        record = self.record(child)
        said = str(record["conversation"]["messages"][0]["content"]) if record else ""
        for what, text in self.documents:
            ends = range(len(text), 0, -1) if text[:20] in said else ()
            if any(record_id(text[:end]) == name for end in ends):  # it was cut to fit the prompt
                return f"{what}  “{_short(text)}”"
        return "a record that was not kept: revised, a copy, or dropped"


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


def _line(walked: Walked) -> str:
    depth, name, what = walked
    named = what if re.match(r"(topic|asked for) “", what) else f"{name}  {what}"
    return f"{'  ' * depth}{named}"


def traced(folder: Path, name: str) -> dict[str, Any]:
    """{"id", "record", "places", "came_from", "became", "read_by", "scored"} of one record.

    came_from and became: (depth, id, what it is). Raises UserError if no record has that id.
    """
    index = Index(folder)
    found = index.found(name)
    became = list(index.walk(name, up=False))
    if not found and not became:
        raise UserError(f"record id {name!r} is in no JSONL file of {folder}")
    homes = {index.place(row).partition("@")[0] for row in found}
    scored = [(index.place(row), index.row(row)) for row in index.found(name, scored=True)]
    return {
        "id": name,
        "record": index.record(name),
        "what": "" if found else index.foreign(name, became[0][1]),
        "places": [index.place(row) for row in found],
        "came_from": list(index.walk(name, up=True)),
        "became": became,
        "read_by": [s.name for s in index.steps if homes & s.manifest["inputs"].keys()],
        "scored": [
            f"{place}  {item['metric']} {item['score']:.3g}  “{_short(item['answer'])}”"
            for place, item in scored
        ],
    }


def trace(folder: Path, name: str) -> list[str]:
    """Lines that tell a record's whole way: what it is, what it came from, what came from it."""
    told = traced(folder, name)
    became = [_line(walked) for walked in told["became"]]
    became += [f"  step {reader} read it" for reader in told["read_by"]]
    became += [f"  {line}" for line in told["scored"]]
    record = told["record"]
    if not record:
        return [_line((0, name, told["what"])), "what came from it", *became]
    came_from = [_line(walked) for walked in told["came_from"]]
    return [
        f"{name}  {told['places'][0]}",
        *(f"  also {place}" for place in told["places"][1:]),
        *(f"  {text}" for text in (_summary(record), *_details(record))),
        *("came from", *(came_from or ["  nothing earlier here"])),
        *("what came from it", *(became or ["  nothing yet"])),
    ]
