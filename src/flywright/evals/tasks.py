"""The registry: every benchmark by name, for the command line, the road and decontamination."""

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from flywright.errors import UserError
from flywright.evals import choice, words
from flywright.evals.alpaca import ALPACA_EVAL
from flywright.evals.arena import ARENA_HARD
from flywright.evals.calls import BFCL
from flywright.evals.datafiles import NotThere
from flywright.evals.flores import FLORES
from flywright.evals.gsm8k import GSM8K
from flywright.evals.humaneval import HUMANEVAL, HUMANEVAL_BASE
from flywright.evals.ifeval import IFEVAL
from flywright.evals.items import Task
from flywright.evals.mbpp import MBPP, MBPP_BASE
from flywright.evals.mtbench import MT_BENCH
from flywright.evals.multipl import MULTIPL_E
from flywright.evals.people import HUMAN
from flywright.evals.rewards import REWARDS
from flywright.evals.safety import SAFETY
from flywright.evals.topics import TFEVAL
from flywright.evals.verifiable import PROMPTS
from flywright.records import Prompt

_INSTRUCT = (MT_BENCH, ALPACA_EVAL, *ARENA_HARD, TFEVAL, BFCL, *SAFETY, *REWARDS, HUMAN)
_CODE = (HUMANEVAL, HUMANEVAL_BASE, MBPP, MBPP_BASE, MULTIPL_E)
_ALL = (IFEVAL, GSM8K, *_CODE, *choice.TASKS, *words.TASKS, FLORES, *_INSTRUCT, PROMPTS)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
PUBLIC = tuple(name for name in TASKS if name not in (PROMPTS.name, "probes", HUMAN.name))


def task_named(asked: str) -> Task:
    """The task of a name; "mmlu@0:anatomy+virology" is asked with 0 examples, of these subjects.

    Raises UserError naming the near miss.
    """
    form = re.fullmatch(r"([^@:]+)(?:@(\d+))?(?::(.+))?", asked)
    name, shots, splits = form.groups() if form else (asked, None, None)
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(TASKS)}"
        raise UserError(f"unknown task {name!r}; {hint}")
    task = TASKS[name] if shots is None else TASKS[name].with_shots(int(shots))
    if splits:
        task = replace(task, load=partial(_only, task.load, tuple(splits.split("+"))))
    return replace(task, name=asked)


def _only(
    load: Callable[[Path], Iterator[Prompt]], splits: tuple[str, ...], data: Path
) -> Iterator[Prompt]:
    return (prompt for prompt in load(data) if prompt.split in splits)


def load_prompts(task: Task, data: Path, limit: int = 0) -> list[Prompt]:
    """The task's first `limit` prompts (0: all), of each split. Raises UserError for none."""
    if prompts := list(first_of(task.load(Path(data)), limit)):
        return prompts
    splits = sorted({prompt.split for prompt in _base(task.name).load(Path(data))} - {""})
    hint = f"; it has {', '.join(splits)}" if splits else ""
    raise UserError(f"{data}: no prompts for task {task.name}{hint}")


def first_of(prompts: Iterable[Prompt], limit: int) -> Iterator[Prompt]:
    """The first `limit` prompts (0: all) of each split."""
    counts: Counter[str] = Counter()
    for prompt in prompts:
        counts[prompt.split] += 1
        if not limit or counts[prompt.split] <= limit:
            yield prompt
        elif not prompt.split:
            return


def _base(name: str) -> Task:
    return TASKS[re.split("[@:]", name)[0]]


def benchmark_texts(data: Path) -> Iterator[tuple[str, str]]:
    """(benchmark, a problem's own words) of every public benchmark whose files are there.

    It is what training data is compared with for decontamination; a text that several tasks ask is
    given once.
    """
    seen: set[str] = set()
    for name in PUBLIC:
        task = TASKS[name] if TASKS[name].shots is None else TASKS[name].with_shots(0)
        with suppress(NotThere):
            for prompt in task.load(Path(data)):
                text = prompt.conversation.last.replace(task.request, "")
                if text not in seen:
                    seen.add(text)
                    yield name, text
