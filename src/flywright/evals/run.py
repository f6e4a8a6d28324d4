"""Evaluate: ask for every answer, score it, write items.jsonl and results.json.

    results = await evaluate(completer, prompts, out=folder, sandbox=sandbox, scorer=scorer)

Killed at any moment and run again, it asks only for what is missing and ends with the same bytes:
seeds belong to prompts, the final files are sorted, and nothing in them tells of time or order.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from flywright.ask import Completer, Ledger, Ledgered, LedgeredScorer, Sampling, Scorer, gather
from flywright.errors import UserError
from flywright.evals.items import Item, Task, item_of, mean_by, metric_name
from flywright.evals.verifiable import PROMPTS
from flywright.files import digest, read_json, seed_from, write_json
from flywright.judge.reward import reward_of
from flywright.progress import Tick, silent
from flywright.records import Prompt, read_jsonl, write_jsonl
from flywright.sandbox import Sandbox

CONCURRENT = 256  # awaits in flight; the engine batches them
ITEMS, RESULTS, LEDGER = "items.jsonl", "results.json", "ledger.partial.jsonl"
REWARD = "reward"

Answer = Callable[[Prompt, Ledger], Awaitable[str]]


@dataclass(frozen=True)
class Results:
    """What results.json holds. metrics: name -> {mean, low, high, n}; far items under NAME_far.

    by_task: the same of each task, near and far items together.
    """

    model: str
    metrics: dict[str, dict[str, float]]
    by_task: dict[str, dict[str, dict[str, float]]]
    fingerprints: dict[str, str]
    sandbox: str


async def evaluate(
    completer: Completer,
    prompts: Sequence[Prompt],
    *,
    out: Path,
    task: Task = PROMPTS,
    scorer: Scorer | None = None,
    sandbox: Sandbox | None = None,
    sampling: Sampling | None = None,
    labels: Mapping[str, Any] | None = None,
    tick: Tick = silent,
) -> Results:
    """Ask the completer for every prompt and score what it says (greedy unless `sampling` says).

    With a scorer, each answer's weighted reward is an item of metric "reward". `labels` (turn,
    stage) stand first in results.json. Raises UserError for two prompts with one id.
    """
    sampling = sampling or Sampling(max_tokens=task.max_tokens)

    async def answer(prompt: Prompt, ledger: Ledger) -> str:
        seeded = sampling.with_seed(seed_from(sampling.seed, prompt.id, 0))
        return (await Ledgered(completer, ledger).complete(prompt.conversation, seeded)).text

    asked = {"model": completer.model, "sampling": sampling.key()}
    judges = _Judges(task, scorer, sandbox)
    return await _run(answer, prompts, asked, judges, Path(out), labels or {}, tick)


async def score_answers(
    answers: Mapping[str, str],
    prompts: Sequence[Prompt],
    *,
    out: Path,
    task: Task,
    model: str = "",
    scorer: Scorer | None = None,
    sandbox: Sandbox | None = None,
    tick: Tick = silent,
) -> Results:
    """Score answers that are already there (by prompt id), as `evaluate` would."""

    async def answer(prompt: Prompt, _ledger: Ledger) -> str:
        return answers[prompt.id]

    asked = {"model": model or "responses", "responses": digest(dict(answers))}
    judges = _Judges(task, scorer, sandbox)
    return await _run(answer, prompts, asked, judges, Path(out), {}, tick)


@dataclass(frozen=True)
class _Judges:
    """What turns an answer into items."""

    task: Task
    scorer: Scorer | None
    sandbox: Sandbox | None

    async def items(self, prompt: Prompt, text: str, ledger: Ledger) -> list[Item]:
        items = await self.task.score(prompt, text, self.sandbox)
        if self.scorer is not None:
            scorer = LedgeredScorer(self.scorer, ledger)
            reward = await reward_of(scorer, prompt.conversation, text)
            items.append(item_of(prompt, REWARD, reward, ""))
        return items


def _fingerprints(
    prompts: Sequence[Prompt], asked: dict[str, str], judges: _Judges
) -> dict[str, str]:
    """Hashes of all that an item depends on."""
    return {
        **asked,
        "prompts": digest([prompt.model_dump(mode="json") for prompt in prompts]),
        "task": f"{judges.task.name}@{judges.task.version}",
        "scorer": judges.scorer.model if judges.scorer else "",
    }


async def _run(
    answer: Answer,
    prompts: Sequence[Prompt],
    asked: dict[str, str],
    judges: _Judges,
    out: Path,
    labels: Mapping[str, Any],
    tick: Tick,
) -> Results:
    if not prompts:
        raise UserError("evaluate: no prompts")
    if len({prompt.id for prompt in prompts}) < len(prompts):
        raise UserError("evaluate: two prompts have the same id")
    fingerprints = _fingerprints(prompts, asked, judges)
    items = _finished(out, fingerprints)
    items = items or await _asked(answer, prompts, judges, out / LEDGER, tick)
    by_task = defaultdict(list)
    for item in items:
        by_task[item.task].append(item)
    results = Results(
        model=asked["model"],
        metrics=mean_by(items, metric_name),
        by_task={task: mean_by(by_task[task], lambda i: i.metric) for task in sorted(by_task)},
        fingerprints=fingerprints,
        sandbox=judges.sandbox.isolation if judges.sandbox else "",
    )
    write_jsonl(out / ITEMS, items)
    write_json(out / RESULTS, {**labels, **asdict(results)})
    (out / LEDGER).unlink(missing_ok=True)
    return results


def _finished(out: Path, fingerprints: dict[str, str]) -> list[Item]:
    """The items of an evaluation that already ended, if it was this one."""
    if not (out / RESULTS).exists() or read_results(out).get("fingerprints") != fingerprints:
        return []
    return list(read_jsonl(out / ITEMS, Item))


async def _asked(
    answer: Answer, prompts: Sequence[Prompt], judges: _Judges, path: Path, tick: Tick
) -> list[Item]:
    """Every prompt's items, sorted. What the ledger at `path` holds is not asked again."""
    async with Ledger(path) as ledger:

        async def items_of(prompt: Prompt) -> list[Item]:
            return await judges.items(prompt, await answer(prompt, ledger), ledger)

        found = await gather(items_of, prompts, CONCURRENT, tick, "answers")
    return sorted(chain(*found), key=lambda item: item.key)


def read_results(folder: Path) -> dict[str, Any]:
    """The results of a folder. Raises UserError where there are none."""
    return read_json(Path(folder) / RESULTS)
