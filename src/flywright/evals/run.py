"""Evaluate: ask for every answer, score it, write items.jsonl and results.json.

    results = await evaluate(completer, prompts, out=folder, sandbox=sandbox, scorer=scorer)

Killed at any moment and run again, it asks only for what is missing and ends with the same bytes:
seeds belong to prompts, the final files are sorted, and nothing in them tells of time or order.
"""

import inspect
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from flywright.ask import (
    Completer,
    Completion,
    Ledger,
    Ledgered,
    LedgeredScorer,
    Sampling,
    Scorer,
    TooLong,
    gather,
)
from flywright.errors import UserError
from flywright.evals.items import Item, Metrics, Task, Who, item_of, mean_by, metric_name
from flywright.evals.verifiable import PROMPTS
from flywright.files import digest, read_json, seed_from, write_json
from flywright.judge.reward import reward_of
from flywright.progress import Tick, silent
from flywright.records import Conversation, Prompt, read_jsonl, write_jsonl
from flywright.sandbox import Sandbox
from flywright.stats import clustered_error, standard_error

CONCURRENT = 256  # awaits in flight; the engine batches them
TOO_LONG = "too long for the model's context"
ITEMS, RESULTS, LEDGER = "items.jsonl", "results.json", "ledger.partial.jsonl"
JUDGMENTS = "judgments.jsonl"  # a judge's every word, kept
REWARD = "reward"


@dataclass(frozen=True)
class Results:
    """What results.json holds. metrics: name -> {mean, low, high, n}; far items under NAME_far.

    by_task: the same of each task, near and far items together; by_split: of each subject or
    language, where there are several. stderr: metric -> {stderr: pooled over the splits, clustered:
    where items of a split go together}. too_long: prompts that did not fit; they count as wrong.
    """

    model: str
    metrics: Metrics
    by_task: dict[str, Metrics]
    by_split: dict[str, Metrics]
    stderr: dict[str, dict[str, float]]
    too_long: int
    fingerprints: dict[str, str]
    sandbox: str


async def evaluate(
    completer: Completer | None,
    prompts: Sequence[Prompt],
    *,
    out: Path,
    task: Task = PROMPTS,
    answers: Mapping[str, str] | None = None,
    scorer: Scorer | None = None,
    sandbox: Sandbox | None = None,
    judge: Completer | None = None,
    sampling: Sampling | None = None,
    labels: Mapping[str, Any] | None = None,
    workers: int = CONCURRENT,
    tick: Tick = silent,
) -> Results:
    """Ask the completer for every prompt and score what it says (greedy unless `sampling` says).

    With `answers` (by prompt id) nobody is asked for one. With a scorer, each answer's weighted
    reward is an item of metric "reward". `labels` (turn, stage) stand first in results.json. Raises
    UserError for two prompts with one id.
    """
    if not prompts:
        raise UserError("evaluate: no prompts")
    if len({prompt.id for prompt in prompts}) < len(prompts):
        raise UserError("evaluate: two prompts have the same id")
    sampling = sampling or Sampling(max_tokens=task.max_tokens, stop=task.stop)
    asked = {"model": "responses", "responses": digest(dict(answers or {}))}
    if answers is None:
        model = completer.model if completer else scorer.model if scorer else ""
        asked = {"model": model, "sampling": sampling.key()}
    who = Who(completer, judge, scorer, sandbox, sampling)
    out, fingerprints = Path(out), _fingerprints(prompts, asked, task, who)
    items = _finished(out, fingerprints)
    items = items or await _asked(answers, prompts, task, who, out / LEDGER, workers, tick)
    splits = _apart(items, lambda item: item.split)
    results = Results(
        model=asked["model"],
        metrics=mean_by(items, metric_name) | (task.summary(items) if task.summary else {}),
        by_task=_apart(items, lambda item: item.task),
        by_split=splits if len(splits) > 1 else {},
        stderr=_errors(items),
        too_long=len({item.id for item in items if item.detail == TOO_LONG}),
        fingerprints=fingerprints,
        sandbox=sandbox.isolation if sandbox else "",
    )
    write_jsonl(out / ITEMS, items)
    write_json(out / RESULTS, {**(labels or {}), **asdict(results)})
    (out / LEDGER).unlink(missing_ok=True)
    return results


def _fingerprints(
    prompts: Sequence[Prompt], asked: dict[str, str], task: Task, who: Who
) -> dict[str, str]:
    """Hashes of all that an item depends on."""
    judge = {"judge": who.judge.model} if who.judge else {}
    return {
        **asked,
        "prompts": digest([prompt.model_dump(mode="json") for prompt in prompts]),
        "task": f"{task.name}@{task.version}",
        "code": _code_hash(task),
        "scorer": who.scorer.model if who.scorer else "",
        **judge,
    }


def _code_hash(task: Task) -> str:
    """Of the module that makes items of answers."""
    makes: Any = task.grade or task.score
    module = inspect.getmodule(getattr(makes, "func", makes))
    return digest(inspect.getsource(module)) if module else ""


def _apart(items: Sequence[Item], name_of: Callable[[Item], str]) -> dict[str, Metrics]:
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[name_of(item)].append(item)
    return {name: mean_by(groups[name], lambda i: i.metric) for name in sorted(groups)}


def _errors(items: Sequence[Item]) -> dict[str, dict[str, float]]:
    """Metric -> standard errors, with the items of a split as a group."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        scores[metric_name(item)][item.split].append(item.score)
    found = {name: list(groups.values()) for name, groups in sorted(scores.items())}
    return {
        name: {"stderr": standard_error(groups)}
        | ({"clustered": clustered_error(groups)} if len(groups) > 1 else {})
        for name, groups in found.items()
    }


def _finished(out: Path, fingerprints: dict[str, str]) -> list[Item]:
    """The items of an evaluation that already ended, if it was this one."""
    if not (out / RESULTS).exists() or read_results(out).get("fingerprints") != fingerprints:
        return []
    return list(read_jsonl(out / ITEMS, Item))


async def _asked(
    answers: Mapping[str, str] | None,
    prompts: Sequence[Prompt],
    task: Task,
    who: Who,
    path: Path,
    workers: int,
    tick: Tick,
) -> list[Item]:
    """Every prompt's items, sorted. What the ledger at `path` holds is not asked again."""
    so_far = Tally()
    async with AsyncExitStack() as stack:
        ledger = stack.enter_context(Ledger(path))
        judgments = path.with_name(JUDGMENTS)
        judged = stack.enter_context(Ledger(judgments)) if who.judge else ledger
        kept = replace(
            who,
            model=Heard(Ledgered(who.model, ledger), so_far) if who.model else None,
            judge=Ledgered(who.judge, judged) if who.judge else None,
            scorer=LedgeredScorer(who.scorer, ledger) if who.scorer else None,
        )

        async def items_of(prompt: Prompt) -> list[Item]:
            seed = seed_from(who.sampling.seed, prompt.id, 0)
            mine = replace(kept, sampling=who.sampling.with_seed(seed))
            try:
                text = await task.ask(prompt, mine) if answers is None else answers[prompt.id]
            except TooLong:
                found = await task.items(prompt, "", mine)
                return [i.model_copy(update={"detail": i.detail or TOO_LONG}) for i in found]
            items = await task.items(prompt, text, mine)
            so_far.add(items)
            if mine.scorer is not None and task.score is not None:
                reward = await reward_of(mine.scorer, prompt.conversation, text)
                items.append(item_of(prompt, REWARD, reward, ""))
            return items

        def told(done: int, total: int, _note: str = "") -> None:
            tick(done, total, so_far.note())

        found = await gather(items_of, prompts, workers, told)
    return sorted(chain(*found), key=lambda item: item.key)


class Tally:
    """What a run says of itself so far."""

    def __init__(self) -> None:
        self.tokens, self._start = 0, time.monotonic()
        self._sums: dict[str, tuple[int, float, float]] = {}

    def add(self, items: Sequence[Item]) -> None:
        """Count these scores."""
        for item in items:
            n, total, squares = self._sums.get(item.metric, (0, 0.0, 0.0))
            self._sums[item.metric] = (n + 1, total + item.score, squares + item.score**2)

    def note(self) -> str:
        """Each metric's mean with half of its 95 % interval, and the tokens written a second."""
        told = [f"{name} {_plus_minus(*sums)}" for name, sums in self._sums.items()]
        rate = self.tokens / max(time.monotonic() - self._start, 1e-9)
        return ", ".join([*told, *([f"{rate:.0f} tokens/s"] if self.tokens else [])])


def _plus_minus(n: int, total: float, squares: float) -> str:
    spread = max(squares / n - (total / n) ** 2, 0.0)
    return f"{total / n:.3f} ± {1.96 * math.sqrt(spread / max(n - 1, 1)):.3f}"


class Heard:
    """A completer whose words are counted."""

    def __init__(self, inner: Completer, tally: Tally):
        self._inner, self._tally, self.model = inner, tally, inner.model
        self.logprobs = inner.logprobs

    async def complete(self, prompt: Conversation | str, sampling: Sampling) -> Completion:
        """As the inner one."""
        said = await self._inner.complete(prompt, sampling)
        self._tally.tokens += said.completion_tokens
        return said


def read_results(folder: Path) -> dict[str, Any]:
    """The results of a folder. Raises UserError where there are none."""
    return read_json(Path(folder) / RESULTS)
