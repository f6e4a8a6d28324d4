"""Several tasks in one go (`flywright eval`): a folder a task, and above it what people read.

results.json holds the numbers with all hashes, card.md the section for a model card, report.html
the numbers with the failures.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flywright.ask import Completer, Sampling, Scorer
from flywright.errors import UserError
from flywright.evals import judging, pages, responses
from flywright.evals.datafiles import watched
from flywright.evals.items import Task, nobody
from flywright.evals.run import RESULTS, Results, evaluate, score_answers
from flywright.evals.tasks import load_prompts, task_named
from flywright.files import write_json, write_text
from flywright.progress import Tick, silent
from flywright.records import Prompt
from flywright.sandbox import Sandbox


async def run_tasks(
    completer: Completer | None,
    names: Sequence[str],
    data: Path,
    out: Path,
    *,
    limit: int = 0,
    answers: Path | None = None,
    judgments: Path | None = None,
    scorer: Scorer | None = None,
    judge: Completer | None = None,
    sandbox: Sandbox | None = None,
    sampling: Sampling | None = None,
    about: Mapping[str, str] | None = None,
    begin: Callable[[str], Tick] = lambda _name: silent,
) -> dict[str, Results]:
    """Run each task into out/TASK, and write out/{results.json, card.md, report.html}.

    `begin(task)` gives the tick of a task, whose notes are its metrics so far.

    results.json: task -> {metrics, stderr, n, hashes, ...}; `about` (the model's hashes) in each.
    With `answers` (a responses file) or `judgments` (what a judge said then, see responses.judged)
    nobody is asked; that takes one task. Raises UserError for an unknown task, missing data, or
    neither a completer nor answers.
    """
    tasks = [task_named(name) for name in dict.fromkeys(names)]
    if missing := [task.name for task in tasks if task.judged and not (judge or judgments)]:
        raise UserError(f"{', '.join(missing)}: name who judges with --judge (or --judgments FILE)")
    if (answers or judgments) and len(tasks) != 1:
        raise UserError("--responses and --judgments are of one task: name exactly one in --tasks")
    results: dict[str, Results] = {}
    entries: dict[str, Any] = {}
    for task in tasks:
        with watched() as files:
            prompts = load_prompts(task, data, limit)
        if judgments is not None:
            prompts, judge = judging.given(judgments, prompts)
        common: dict[str, Any] = {"scorer": scorer, "sandbox": sandbox, "judge": judge}
        common |= {"out": Path(out) / task.name, "task": task}
        common["tick"] = begin(task.name)
        if answers is not None:
            answered, texts = responses.match(answers, prompts)
            found = await score_answers(texts, answered, **common)
        elif completer is None and judgments is not None:
            found = await score_answers({prompt.id: "" for prompt in prompts}, prompts, **common)
        elif completer is not None or scorer is not None or task.ask is nobody:
            found = await evaluate(completer, prompts, sampling=sampling, **common)
        else:
            raise UserError("eval: name a MODEL, or give answers with --responses")
        results[task.name] = found
        entries[task.name] = _entry(task, found, files, limit, about or {})
        _keep_words(Path(out) / task.name, prompts)
    write_json(Path(out) / RESULTS, entries)
    write_text(Path(out) / pages.CARD, pages.card(entries))
    write_text(Path(out) / pages.REPORT, pages.report([Path(out)]))
    return results


def _keep_words(folder: Path, prompts: Sequence[Prompt]) -> None:
    """The problems' own words beside the answers, for who reads them."""
    rows = ({"id": prompt.id, "words": prompt.conversation.last} for prompt in prompts)
    write_text(folder / pages.WORDS, "".join(f"{json.dumps(row)}\n" for row in rows))


def _entry(
    task: Task, results: Results, files: Mapping[str, str], limit: int, about: Mapping[str, str]
) -> dict[str, Any]:
    found = results.metrics
    shots = f"{task.shots}-shot; " if task.shots is not None else ""
    part = f"; the first {limit} problems (of each subject)" if limit else ""
    return {
        "metrics": found,
        "stderr": {name: error["stderr"] for name, error in results.stderr.items()},
        "clustered": {
            name: error["clustered"]
            for name, error in results.stderr.items()
            if "clustered" in error
        },
        "n": max(int(one["n"]) for one in found.values()),
        "by_split": results.by_split,
        "too_long": results.too_long,
        "protocol": f"{shots}{task.protocol or 'greedy, 0-shot chat'}{part}",
        "hashes": {**results.fingerprints, "data": dict(files)},
        "model": results.model,
        "about": dict(about),
        "sandbox": results.sandbox,
    }
