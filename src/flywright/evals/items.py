"""What an evaluation is made of: a Task gives prompts and scores answers; an Item is one number."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flywright.records import Prompt, Record
from flywright.sandbox import Sandbox
from flywright.stats import bootstrap_mean, mean_of_means

FAR = "far"
STAGE_METRICS = ("accuracy", "instruction_following", "code")  # a stage's row, and their mean


class Item(Record):
    """One score of one answer. Metrics with several scores an answer number them: "1000#2"."""

    id: str
    task: str
    split: str = ""
    metric: str
    score: float
    answer: str
    truth: str = ""
    detail: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What names an item within an evaluation, and pairs it with another's."""
        return (self.metric, self.id)


def item_of(prompt: Prompt, metric: str, score: float, answer: str, **more: str) -> Item:
    """The item of a prompt's answer; `more`: truth, detail, or another id."""
    given = {"id": prompt.id, "task": prompt.task, "split": prompt.split, **more}
    return Item.model_validate({**given, "metric": metric, "score": score, "answer": answer})


ScoreAnswer = Callable[[Prompt, str, Sandbox | None], Awaitable[list[Item]]]


@dataclass(frozen=True)
class Task:
    """A benchmark: where its prompts come from, and how an answer becomes items.

    `load(path)` takes the data folder (with the benchmark's folder in it), the benchmark's folder,
    or its file, and yields prompts in the file's order. `request` is what we add to the problem's
    own words. `version` is bumped when scoring changes.
    """

    name: str
    load: Callable[[Path], Iterator[Prompt]]
    score: ScoreAnswer
    max_tokens: int = 512
    request: str = ""
    version: int = 1


def mean_by(items: Iterable[Item], name_of: Callable[[Item], str]) -> dict[str, dict[str, float]]:
    """Name -> {mean, low, high, n} over the items of that name; "mean" as `stage_mean` has it."""
    groups: dict[str, list[float]] = defaultdict(list)
    for item in items:
        groups[name_of(item)].append(item.score)
    means = {name: bootstrap_mean(groups[name]).as_dict() for name in sorted(groups)}
    return means | stage_mean(groups)


def stage_mean(groups: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """{"mean": the mean of the stage metrics' means}; empty unless all three are there."""
    if not all(groups.get(name) for name in STAGE_METRICS):
        return {}
    return {"mean": mean_of_means([groups[name] for name in STAGE_METRICS]).as_dict()}


def metric_name(item: Item) -> str:
    """The metric's name in results; items of the far split are reported apart."""
    return f"{item.metric}_far" if item.split == FAR else item.metric
