"""What a run left behind as plain objects (steps, evaluations, curves), and their names."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

SHARED_STEPS = ("documents", "tokenizer", "shards", "pretrain", "continue", "ratings", "reward")
TURN_STEPS = ("base", "prompts", "code", "dialogues", "code-sft", "sft", "comparisons", "dpo")
STAGES = ("base", "code_sft", "sft", "dpo")  # then rpo1, rpo2 ...
TRAINING_STEPS = ("pretrain", "continue", "base", "reward", "code-sft", "sft", "dpo")
LABELS = {
    "code_sft": "Code SFT",
    "code-sft": "Code SFT",
    "sft": "General SFT",
    "dpo": "DPO",
    "continue": "Continued pretraining",
    "pretrain": "Pretraining",
    "reward": "Reward model",
    "llm": "LLM",
    "truth": "Ground truth",
}


def label(name: str) -> str:
    """A stage's or step's name as people read it: "code_sft" -> "Code SFT", "rpo2" -> "RPO 2"."""
    iteration = re.fullmatch(r"rpo(\d+)", name)
    if iteration:
        return f"RPO {iteration[1]}"
    words = name.replace("_", " ").replace("-", " ")
    return LABELS.get(name, words[:1].upper() + words[1:])


def rank(name: str, known: tuple[str, ...], unknown: int) -> int:
    """The place of a name on the road: its place in `known`, the RPO iterations after them."""
    iteration = re.fullmatch(r"rpo(\d+)", name)
    if iteration:
        return len(known) + int(iteration[1])
    return known.index(name) if name in known else unknown


@dataclass(frozen=True)
class Step:
    """A finished step. `turn` is 0 before the first turn; `kind` is the name without the turn."""

    name: str
    version: str
    folder: Path
    manifest: dict[str, Any]

    @property
    def turn(self) -> int:
        """The turn of the flywheel: "2-dpo" -> 2, "pretrain" -> 0."""
        head = re.match(r"(\d+)-", self.name)
        return int(head[1]) if head else 0

    @property
    def kind(self) -> str:
        """The name without the turn: "2-dpo" -> "dpo"."""
        return re.sub(r"^\d+-", "", self.name)

    @property
    def title(self) -> str:
        """The name as people read it, with its turn."""
        if self.kind.startswith("eval-"):
            name = "Evaluation of " + label(self.kind.removeprefix("eval-"))
        else:
            name = label(self.kind)
        return f"{name}, turn {self.turn}" if self.turn else name

    @property
    def facts(self) -> dict[str, Any]:
        """What the step found worth telling, from its manifest."""
        facts = self.manifest.get("facts")
        return facts if isinstance(facts, dict) else {}

    @property
    def position(self) -> tuple[int, int, int, str]:
        """Sorting key: the order of the road, evaluations right after what they evaluate."""
        evaluation = self.kind.startswith("eval-")
        name = self.kind.removeprefix("eval-")
        known = TURN_STEPS if self.turn else SHARED_STEPS
        name = name.replace("_", "-") if evaluation else name
        unknown = -1 if evaluation else 1000
        return (self.turn, rank(name, known, unknown), int(evaluation), self.name)


@dataclass(frozen=True)
class Item:
    """One held-out item as one model answered it; `score` is in the units of `metric`."""

    id: str
    task: str
    split: str
    metric: str
    score: float
    answer: str
    truth: str
    prompt: str


@dataclass(frozen=True)
class Evaluation:
    """One stage, measured. `metrics`: name -> {"mean", "low", "high", "n"}."""

    turn: int
    stage: str
    model: str
    metrics: dict[str, dict[str, float | None]]
    items: list[Item]

    @property
    def ours(self) -> bool:
        """True for a stage of the trained line; False for a model that came from outside."""
        return rank(self.stage, STAGES, -1) >= 0

    def metric_of(self, item: Item) -> str:
        """The metric whose mean holds this item: NAME_far for a far item where results tell it."""
        apart = f"{item.metric}_far"
        return apart if item.split == "far" and apart in self.metrics else item.metric

    @cached_property
    def scores(self) -> dict[str, dict[str, float]]:
        """metric -> item id -> score, over the items that the metric's mean was taken over."""
        table: dict[str, dict[str, float]] = {}
        for item in self.items:
            table.setdefault(self.metric_of(item), {})[item.id] = item.score
        return table

    @cached_property
    def answers(self) -> dict[str, str]:
        """Item id -> answer, each item once; an item of reward alone may not repeat its answer."""
        judged = {item.id: item.answer for item in self.items if item.metric != "reward"}
        return judged or {item.id: item.answer for item in self.items}


@dataclass(frozen=True)
class Curve:
    """metrics.jsonl of one training step: a column for each number, one value a row."""

    step: Step
    columns: dict[str, list[float]]


@dataclass(frozen=True)
class Run:
    """Everything the report reads from one run directory."""

    folder: Path
    steps: list[Step]
    evaluations: list[Evaluation] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)

    def step(self, name: str) -> Step | None:
        """The finished step of that name, or None."""
        return next((step for step in self.steps if step.name == name), None)

    @property
    def turns(self) -> list[int]:
        """The turns of which something is finished."""
        return sorted({step.turn for step in self.steps if step.turn})
