"""What an evaluation is made of: a Task gives prompts and scores answers; an Item is one number."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from flywright.ask import Completer, Sampling, Scorer
from flywright.errors import UserError
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


@dataclass(frozen=True)
class Who:
    """Who takes part in an evaluation; what is asked of each is remembered in the run's ledger.

    sampling: how `model` is to answer, with the prompt's own seed.
    """

    model: Completer | None = None
    judge: Completer | None = None
    scorer: Scorer | None = None
    sandbox: Sandbox | None = None
    sampling: Sampling = field(default_factory=Sampling)

    @property
    def asked(self) -> Completer:
        """The model. Raises UserError where there is none."""
        return _there(self.model, "a MODEL that answers")

    @property
    def judging(self) -> Completer:
        """The judge. Raises UserError where there is none."""
        return _there(self.judge, "a judge: name one with --judge")

    @property
    def rating(self) -> Scorer:
        """The reward model. Raises UserError where there is none."""
        return _there(self.scorer, "a reward model's folder")


def _there(who: Any, what: str) -> Any:
    if who is None:
        raise UserError(f"this task needs {what}")
    return who


async def complete(prompt: Prompt, who: Who) -> str:
    """How a model is asked if its task does not say otherwise: the conversation, once."""
    return (await who.asked.complete(prompt.conversation, who.sampling)).text


async def nobody(_prompt: Prompt, _who: Who) -> str:
    """Where the task's own data holds all answers, and none is written."""
    return ""


ScoreAnswer = Callable[[Prompt, str, Sandbox | None], Awaitable[list[Item]]]
Metrics = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Task:
    """A benchmark: where its prompts come from, how they are asked, how answers become items.

    `load(path)` takes the data folder (with the benchmark's folder in it), the benchmark's folder,
    or its file, and yields prompts in the file's order; `prompt.conversation` holds the problem's
    own words, and `prompt.split` the subject or language that results are also told by. `request`
    is what we add to the problem's own words. `version` is bumped when scoring changes.

    `ask(prompt, who)` gives the raw answer as text, JSON where it is more than one text; `score`
    makes items of it, or `grade` where that takes more than a sandbox. `summary(items)` gives
    metrics that are no means of all items. `shots`: how many examples stand before a problem, where
    one may choose (`load` takes it by name). `protocol` says in a line how the number is made.
    """

    name: str
    load: Callable[..., Iterator[Prompt]]
    score: ScoreAnswer | None = None
    max_tokens: int = 512
    request: str = ""
    version: int = 1
    ask: Callable[[Prompt, Who], Awaitable[str]] = complete
    grade: Callable[[Prompt, str, Who], Awaitable[list[Item]]] | None = None
    summary: Callable[[Sequence[Item]], Metrics] | None = None
    stop: tuple[str, ...] = ()
    judged: bool = False  # grading takes a judge
    runs_code: bool = False  # grading takes a sandbox
    shots: int | None = None
    protocol: str = ""

    def with_shots(self, shots: int) -> "Task":
        """Asked with another number of examples. Raises UserError where they are no choice."""
        if self.shots is None:
            raise UserError(f"{self.name}@{shots}: this task's examples are fixed")
        return replace(self, shots=shots, load=partial(self.load, shots=shots))

    async def items(self, prompt: Prompt, answer: str, who: Who) -> list[Item]:
        """The items of an answer."""
        if self.grade is not None:
            return await self.grade(prompt, answer, who)
        assert self.score is not None, f"task {self.name} neither scores nor grades"
        return await self.score(prompt, answer, who.sandbox)


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
