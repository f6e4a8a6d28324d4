"""What came from a model, a template or a source: `flywright trace DIR --model NAME`.

A record is touched if the model wrote it, wrote its rejected answer or judged it, or if it was made
of a record that is touched, however many steps later.
"""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flywright.errors import UserError
from flywright.files import atomic_folder, refuse_filled, write_text
from flywright.records import raw_lines
from flywright.report.trace import Index, Who

ROLES = ("wrote", "wrote the rejected answer", "judged", "template", "source")


@dataclass
class Touched:
    """The rows that are touched, and by what role the first of them are."""

    index: Index
    rows: np.ndarray  # of bool, one for each row of the index
    roles: dict[str, int]
    direct: np.ndarray

    def counts(self) -> list[dict[str, Any]]:
        """{"file", "direct", "descendants", "records"} of each file that has any record."""
        found = []
        for number, (label, _) in enumerate(self.index.files):
            mine = (self.index.file == number) & ~self.index.scored.astype(bool)
            direct, all_ = int((mine & self.direct).sum()), int((mine & self.rows).sum())
            if mine.any():
                row = {"file": label, "direct": direct, "descendants": all_ - direct}
                found.append(row | {"records": int(mine.sum())})
        return found

    def trained(self) -> list[str]:
        """The run's steps that read a touched file, and those that read these steps' outputs."""
        files = (row["file"] for row in self.counts() if row["direct"] or row["descendants"])
        reached = {file.partition("@")[0] for file in files}
        homes, found = set(reached), []
        for step in self.index.steps:  # in the order of the road
            if homes & step.manifest["inputs"].keys():
                homes.add(step.name)
                found.append(step.name)
        return [name for name in found if name not in reached]

    def ids(self) -> list[str]:
        """The touched ids, each once, in the order of the files."""
        names = (self.index.row(int(row))["id"] for row in np.flatnonzero(self.rows))
        return list(dict.fromkeys(names))


def _same(name: str, wanted: str) -> bool:
    """Also without its revision, and behind a judge's kind ("llm: NAME")."""
    parts = {name, name.partition("@")[0], name.partition(":")[2].strip()}
    return wanted in parts | {part.partition("@")[0] for part in parts}


def _roles(who: Who, model: str, template: str, source: str) -> list[str]:
    wrote, rejected, made_with, came_from, judges = who
    held = (
        model and _same(wrote, model),
        model and _same(rejected, model),
        model and any(_same(judge, model) for judge in judges),
        template and template in (made_with, *made_with.split("@")),
        source and source == came_from,
    )
    return [role for role, is_so in zip(ROLES, held, strict=True) if is_so]


def touched(folder: Path, model: str = "", template: str = "", source: str = "") -> Touched:
    """All that has to do with it, and all that was made of that. Raises UserError for none."""
    index = Index(folder)
    by_who = [_roles(who, model, template, source) for who in index.whose]
    any_role = np.array([bool(roles) for roles in by_who], dtype=bool)
    records = ~index.scored.astype(bool)
    direct = any_role[index.who] & records if len(index.ids) else records
    reached = np.unique(np.append(index.ids[direct], [hash(n) for n in (template,) if n]))
    frontier = reached
    while len(frontier):
        made = index.ids[index.child[np.isin(index.parent, frontier)]]
        frontier = np.setdiff1d(made, reached)
        reached = np.union1d(reached, frontier)
    rows = np.isin(index.ids, reached) & records
    if not rows.any():
        raise UserError(f"{folder}: no record has to do with {model or template or source!r}")
    counts = Counter[str]()
    for who, number in zip(*np.unique(index.who[direct], return_counts=True), strict=True):
        counts.update(dict.fromkeys(by_who[who], int(number)))
    return Touched(index, rows, dict(counts), direct)


def write_ids(found: Touched, path: Path) -> int:
    """The touched ids, one a line; returns how many."""
    ids = found.ids()
    write_text(path, "".join(f"{name}\n" for name in ids))
    return len(ids)


def write_without(found: Touched, out: Path) -> int:
    """The JSONL files again, without the touched lines; returns how many lines went."""
    refuse_filled(out)
    index, gone = found.index, 0
    doomed = np.isin(index.ids, np.unique(index.ids[found.rows]))  # its evaluated items too
    with atomic_folder(out) as folder:
        for number, (label, path) in enumerate(index.files):
            (folder / label).parent.mkdir(parents=True, exist_ok=True)
            offsets = set(index.offsets(number)[doomed[index.file == number]].tolist())
            gone += len(offsets)
            if not offsets:
                shutil.copyfile(path, folder / label)
                continue
            with (folder / label).open("wb") as stream:
                stream.writelines(raw for _, at, raw in raw_lines(path) if at not in offsets)
    return gone
