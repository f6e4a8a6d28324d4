"""Any list of Prompt records with checks: right or wrong, under the metric that the checks imply.

A code check makes it "code" (pass@1 on hidden tests), a verifiable instruction makes it
"instruction_following" (prompt-strict: all of them hold), anything else is "accuracy" (exact).
"""

from collections.abc import Iterator
from pathlib import Path

from flywright.errors import UserError
from flywright.evals.datafiles import find
from flywright.evals.items import Item, Task, item_of
from flywright.judge.instructions import CHECKERS
from flywright.judge.truth import is_right
from flywright.records import Prompt, read_jsonl
from flywright.sandbox import Sandbox


def metric_of(prompt: Prompt) -> str:
    """The metric that the prompt's checks imply. Raises UserError for a prompt without checks."""
    kinds = {check.kind for check in prompt.checks}
    if not kinds:
        raise UserError(f"prompt {prompt.id}: no checks, so it cannot be evaluated")
    if "code" in kinds:
        return "code"
    return "instruction_following" if kinds & CHECKERS.keys() else "accuracy"


def truth_of(prompt: Prompt) -> str:
    """The expected answer as text, or an empty string where a program checks."""
    answers = [str(check.args["answer"]) for check in prompt.checks if "answer" in check.args]
    return " | ".join(answers)


async def score(prompt: Prompt, answer: str, sandbox: Sandbox | None) -> list[Item]:
    """One item, 1 or 0."""
    right = await is_right(prompt, answer, sandbox, "hidden")
    return [item_of(prompt, metric_of(prompt), float(right), answer, truth=truth_of(prompt))]


def load(path: Path) -> Iterator[Prompt]:
    """The Prompt records of a JSONL file (or of prompts.jsonl in a folder)."""
    yield from read_jsonl(find(path, "prompts", "prompts.jsonl"), Prompt)


PROMPTS = Task("prompts", load, score, runs_code=True)
