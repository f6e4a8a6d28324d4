"""The registry: every benchmark by name, for the command line, the road and decontamination."""

import difflib
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from flywright.errors import UserError
from flywright.evals.datafiles import NotThere
from flywright.evals.gsm8k import GSM8K
from flywright.evals.humaneval import HUMANEVAL
from flywright.evals.ifeval import IFEVAL
from flywright.evals.items import Task
from flywright.evals.mbpp import MBPP
from flywright.evals.verifiable import PROMPTS
from flywright.records import Prompt

TASKS: dict[str, Task] = {task.name: task for task in (IFEVAL, GSM8K, HUMANEVAL, MBPP, PROMPTS)}
PUBLIC = tuple(name for name in TASKS if name != PROMPTS.name)


def task_named(name: str) -> Task:
    """The task of that name. Raises UserError naming the near miss."""
    if name in TASKS:
        return TASKS[name]
    close = difflib.get_close_matches(name, TASKS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(TASKS)}"
    raise UserError(f"unknown task {name!r}; {hint}")


def load_prompts(task: Task, data: Path, limit: int = 0) -> list[Prompt]:
    """The task's first `limit` prompts (0: all). Raises UserError where there are none."""
    prompts = list(islice(task.load(Path(data)), limit or None))
    if not prompts:
        raise UserError(f"{data}: no prompts for task {task.name}")
    return prompts


def benchmark_texts(data: Path) -> Iterator[tuple[str, str]]:
    """(benchmark, a problem's own words) of every public benchmark whose files are there.

    It is what training data is compared with for decontamination.
    """
    for name in PUBLIC:
        with suppress(NotThere):
            for prompt in TASKS[name].load(Path(data)):
                yield name, prompt.conversation.last.replace(TASKS[name].request, "")
