"""Several tasks in one go (`flywright eval`): a folder a task, and one results.json above."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flywright.ask import Completer, Sampling, Scorer
from flywright.errors import UserError
from flywright.evals import responses
from flywright.evals.run import RESULTS, Results, evaluate, score_answers
from flywright.evals.tasks import load_prompts, task_named
from flywright.files import write_json
from flywright.progress import Tick, silent
from flywright.sandbox import Sandbox


async def run_tasks(
    completer: Completer | None,
    names: Sequence[str],
    data: Path,
    out: Path,
    *,
    limit: int = 0,
    answers: Path | None = None,
    scorer: Scorer | None = None,
    sandbox: Sandbox | None = None,
    sampling: Sampling | None = None,
    tick: Tick = silent,
) -> dict[str, Results]:
    """Run each task into out/TASK, and write out/results.json: task -> {metrics, n, hashes}.

    With `answers` (a responses file) nobody is asked; that takes one task. Raises UserError for an
    unknown task, missing data, or neither a completer nor answers.
    """
    tasks = [task_named(name) for name in dict.fromkeys(names)]
    if answers is not None and len(tasks) != 1:
        raise UserError("--responses holds the answers of one task: name exactly one in --tasks")
    results: dict[str, Results] = {}
    for task in tasks:
        prompts = load_prompts(task, data, limit)
        common: dict[str, Any] = {"scorer": scorer, "sandbox": sandbox, "tick": tick}
        common |= {"out": Path(out) / task.name, "task": task}
        if answers is not None:
            answered, texts = responses.match(answers, prompts)
            results[task.name] = await score_answers(texts, answered, **common)
        elif completer is not None:
            results[task.name] = await evaluate(completer, prompts, sampling=sampling, **common)
        else:
            raise UserError("eval: name a MODEL, or give answers with --responses")
    write_json(Path(out) / RESULTS, {name: _entry(found) for name, found in results.items()})
    return results


def _entry(results: Results) -> dict[str, Any]:
    found = results.metrics
    return {
        "metrics": found,
        "stderr": {name: (one["high"] - one["low"]) / (2 * 1.96) for name, one in found.items()},
        "n": max(int(one["n"]) for one in found.values()),
        "hashes": results.fingerprints,
        "model": results.model,
        "sandbox": results.sandbox,
    }
