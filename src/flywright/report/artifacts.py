"""What a run left behind: its finished steps and evaluations, and their names for people.

A run directory holds steps/NAME@VERSION/manifest.json and what the step made (HOUSE section 7).
A step without a manifest is unfinished and is left out; of several versions the newest counts. The
order is that of the road, as the manifests number it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flywright.errors import UserError
from flywright.files import read_json
from flywright.records import parse_lines, read_jsonl

LABELS = {
    "code-sft": "Code SFT",
    "sft": "General SFT",
    "dpo": "DPO",
    "continue": "Continued pretraining",
    "pretrain": "Pretraining",
    "reward": "Reward model",
    "llm": "LLM",
}
NOT_RECORDS = ("ledger.jsonl", "metrics.jsonl")


def label(name: str) -> str:
    """A stage's or step's name as people read it: "code_sft" -> "Code SFT", "rpo2" -> "RPO 2"."""
    name = name.replace("_", "-")
    plain = re.sub(r"^rpo(\d+)$", r"RPO \1", name).replace("-", " ")
    return LABELS.get(name, plain[:1].upper() + plain[1:])


@dataclass(frozen=True)
class Step:
    """A finished step. "2-eval-dpo": its turn is 2 (0 before the first), its kind "eval-dpo"; it
    `evaluates` the stage "dpo", and is a row of the stage table. Of others the stage is the kind.
    """

    name: str
    turn: int
    kind: str
    folder: Path
    manifest: dict[str, Any]

    @property
    def stage(self) -> str:
        """What it makes or evaluates."""
        return self.kind.removeprefix("eval-")

    @property
    def evaluates(self) -> bool:
        """True for a row of the stage table."""
        return self.stage != self.kind

    @property
    def title(self) -> str:
        """The name as people read it, with its turn."""
        name = ("Evaluation of " if self.evaluates else "") + label(self.stage)
        return f"{name}, turn {self.turn}" if self.turn else name

    @property
    def facts(self) -> dict[str, Any]:
        """What the step found worth telling, from its manifest."""
        return self.manifest["facts"]

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """metrics.jsonl, an object for each optimizer step; empty if this is no training step."""
        path = self.folder / "metrics.jsonl"
        return [row for _, row in parse_lines(path)] if path.exists() else []

    def lines(self, key: str = "id") -> Iterator[tuple[str, dict[str, Any]]]:
        """("file.jsonl:line", object) of all that has `key`; "id": records, evaluated items."""
        for path in sorted(self.folder.glob("*.jsonl")):
            for line, value in parse_lines(path) if path.name not in NOT_RECORDS else ():
                if key in value:
                    yield f"{path.name}:{line}", value

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """The distinct records by id: what passed a second, looser filter too is there once."""
        return {value["id"]: value for _, value in self.lines() if "lineage" in value}


class Item(BaseModel):
    """One held-out item as one model answered it; `score` is in the units of `metric`."""

    id: str
    task: str = ""
    split: str = ""
    metric: str
    score: float
    answer: str = ""
    truth: str = ""


@dataclass(frozen=True)
class Evaluation:
    """One stage, measured; `ours` is False for a model from outside, which made the first data."""

    turn: int
    stage: str
    metrics: dict[str, dict[str, float]]
    items: list[Item]
    folder: Path
    ours: bool = True

    @property
    def title(self) -> str:
        """The stage as people read it, with its turn."""
        return f"{label(self.stage)}, turn {self.turn}"

    def asked(self, far: bool = False) -> int:
        """How many prompts it answered, near or far."""
        ids = (item.id.partition("#")[0] for item in self.items if (item.split == "far") == far)
        return len(set(ids))

    @cached_property
    def scores(self) -> dict[str, dict[str, float]]:
        """metric -> item id -> score; far items belong to NAME_far where results tell it apart."""
        table: dict[str, dict[str, float]] = {}
        for item in self.items:
            apart = f"{item.metric}_far"
            name = apart if item.split == "far" and apart in self.metrics else item.metric
            table.setdefault(name, {})[item.id] = item.score
        return table


@dataclass(frozen=True)
class Run:
    """What the report reads: the steps in the order of the road, and the evaluations."""

    folder: Path
    steps: list[Step]
    evaluations: list[Evaluation]
    settings: dict[str, Any]

    def turn(self, turn: int) -> list[Evaluation]:
        """What was measured in one turn."""
        return [row for row in self.evaluations if row.turn == turn]

    def last(self, turn: int) -> Evaluation | None:
        """The last trained stage of a turn; None before there is one."""
        return next((row for row in reversed(self.turn(turn)) if row.ours), None)

    def facts(self, name: str) -> dict[str, Any]:
        """The facts of the finished step of that name; none if it is not finished."""
        return next((step.facts for step in self.steps if step.name == name), {})


def read_steps(run_dir: Path) -> list[Step]:
    """The finished steps in the order of the road. Raises UserError if this is no run directory."""
    if not (run_dir / "steps").is_dir():
        raise UserError(f"{run_dir}: no steps/ folder, so this is not a run directory")
    steps = [_step(path) for path in (run_dir / "steps").glob("*@*/manifest.json")]
    newest = {s.name: s for s in sorted(steps, key=lambda s: s.manifest["version"])}.values()
    return sorted(newest, key=lambda s: (s.manifest.get("number", 0), s.manifest["started"]))


def _step(path: Path) -> Step:
    name = path.parent.name.rpartition("@")[0]
    turn, dash, kind = name.partition("-")
    known = (int(turn), kind) if dash and turn.isdigit() else (0, name)
    return Step(name, *known, path.parent, read_json(path))


def _evaluation(step: Step, generator: str) -> Evaluation:
    found = read_json(step.folder / "results.json", missing_ok=True)
    stage, turn = found.get("stage", step.stage), found.get("turn", step.turn)
    items = list(read_jsonl(step.folder / "items.jsonl", Item))
    return Evaluation(turn, stage, found.get("metrics", {}), items, step.folder, stage != generator)


def read_run(run_dir: Path) -> Run:
    """Read a run directory, finished or partial.

    Raises UserError naming the file (and line) when an artifact cannot be read.
    """
    steps, settings = read_steps(run_dir), read_json(run_dir / "settings.json", missing_ok=True)
    generator = settings.get("generator", {}).get("name", "")
    rows = [_evaluation(step, generator) for step in steps if step.evaluates]
    return Run(run_dir, steps, rows, settings)
