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
from flywright.evals.run import CONCURRENT, RESULTS, Results, evaluate
from flywright.evals.tasks import first_of, load_prompts, task_named
from flywright.files import read_json, write_json, write_text
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
    samples: int = 1,
    workers: int = CONCURRENT,
    answers: Path | None = None,
    judgments: Path | None = None,
    scorer: Scorer | None = None,
    judge: Completer | None = None,
    sandbox: Sandbox | None = None,
    temperature: float = 0.0,
    about: Mapping[str, str] | None = None,
    begin: Callable[[str], Tick] = lambda _name: silent,
) -> dict[str, Results]:
    """Run each task into out/TASK, and write out/{results.json, card.md, report.html}.

    `samples`: so many answers to each prompt. `begin(task)` gives the tick of a task, whose notes
    are its metrics so far.

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
    if samples > 1 and not temperature:
        raise UserError("--samples: greedy ones are all the same; give --temperature, e.g. 0.8")
    results: dict[str, Results] = {}
    entries: dict[str, Any] = {}
    for task in tasks:
        with watched() as files:
            prompts, texts, replay, part = _asked_for(task, data, limit, answers, judgments)
        common: dict[str, Any] = {"scorer": scorer, "sandbox": sandbox, "judge": replay or judge}
        common |= {"out": Path(out) / task.name, "task": task, "workers": workers}
        common["tick"] = begin(task.name)
        if judgments and completer is None:
            texts = texts or dict.fromkeys((prompt.id for prompt in prompts), "")
        if texts is not None:
            found = await evaluate(None, prompts, answers=texts, **common)
        elif completer is not None or scorer is not None or task.ask is nobody:
            prompts = several(prompts, samples)
            how = Sampling(task.max_tokens, temperature, stop=task.stop)
            found = await evaluate(completer, prompts, sampling=how, **common)
            part += f"; {samples} samples at temperature {temperature:g}" if temperature else ""
        else:
            raise UserError("eval: name a MODEL, or give answers with --responses")
        results[task.name] = found
        entries[task.name] = _entry(task, found, files, part, about or {})
        _keep_words(Path(out) / task.name, prompts)
    entries = _before(Path(out), entries) | entries
    write_json(Path(out) / RESULTS, entries)
    write_text(Path(out) / pages.CARD, pages.card(entries))
    write_text(Path(out) / pages.REPORT, pages.report([Path(out)]))
    return results


def _asked_for(
    task: Task, data: Path, limit: int, answers: Path | None, judgments: Path | None
) -> tuple[list[Prompt], dict[str, str] | None, Completer | None, str]:
    """(prompts, their answers if given, a judge that replays, what part of the task this is)."""
    prompts = load_prompts(task, data, 0 if answers or judgments else limit)
    wanted = {prompt.id for prompt in first_of(prompts, limit)}
    texts, replay = None, None
    if judgments is not None:
        prompts, replay = judging.given(judgments, prompts)
    if answers is not None:
        prompts, texts = responses.match(answers, prompts, task.request)
    prompts = [prompt for prompt in prompts if prompt.id.partition("~")[0] in wanted]
    texts = texts and {prompt.id: texts[prompt.id] for prompt in prompts}
    there = len({prompt.id.partition("~")[0] for prompt in prompts})
    part = f"; the first {limit} problems (of each subject)" if limit else ""
    part += f"; only {there} of {len(wanted)} answered" if there < len(wanted) else ""
    return prompts, texts, replay, part


def several(prompts: Sequence[Prompt], samples: int) -> list[Prompt]:
    """Each prompt so many times: "ID", "ID~1", ..., whose seeds differ as their ids do."""
    copies = [
        [p.model_copy(update={"id": f"{p.id}~{n}"}) for n in range(1, samples)] for p in prompts
    ]
    return [one for prompt, more in zip(prompts, copies, strict=True) for one in (prompt, *more)]


def _before(out: Path, entries: Mapping[str, Any]) -> dict[str, Any]:
    """What the folder already says of the same model's other tasks."""
    said = read_json(out / RESULTS, missing_ok=True) or {}
    asked = {(entry["model"], str(entry["about"])) for entry in entries.values()}
    return {
        name: entry
        for name, entry in said.items()
        if isinstance(entry, dict) and (entry.get("model"), str(entry.get("about"))) in asked
    }


def _keep_words(folder: Path, prompts: Sequence[Prompt]) -> None:
    """The problems' own words beside the answers, for who reads them."""
    rows = ({"id": prompt.id, "words": prompt.conversation.last} for prompt in prompts)
    write_text(folder / pages.WORDS, "".join(f"{json.dumps(row)}\n" for row in rows))


def _entry(
    task: Task, results: Results, files: Mapping[str, str], part: str, about: Mapping[str, str]
) -> dict[str, Any]:
    found = results.metrics
    shots = f"{task.shots}-shot; " if task.shots is not None else ""
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
