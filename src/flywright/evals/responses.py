"""Answers that others made: JSONL lines matched to a task's prompts, several a prompt if need be.

Lines hold who they answer ("id", "task_id", "key" or "prompt") and the answer ("response",
"completion" or "output").
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from flywright.data.rows import read_rows
from flywright.errors import UserError
from flywright.records import Prompt

_NAMES = ("id", "task_id", "key", "prompt", "instruction")
_ANSWERS = ("response", "completion", "output")


def match(path: Path, prompts: Sequence[Prompt]) -> tuple[list[Prompt], dict[str, str]]:
    """(the prompts that were answered, answer by prompt id), in the prompts' order.

    A second answer to a prompt becomes a prompt of its own, "ID~1", so that the mean over items is
    the mean over samples. Raises UserError with file:line for a line that answers no prompt.
    """
    known = _lookup(prompts)
    found: dict[str, list[str]] = {}
    for number, row in enumerate(read_rows(path), start=1):
        answer = next((row[name] for name in _ANSWERS if isinstance(row.get(name), str)), None)
        if answer is None:
            raise UserError(f"{path}:{number}: none of {', '.join(_ANSWERS)} holds an answer")
        named = (known.get(str(row[name])) for name in _NAMES if name in row)
        prompt = next(filter(None, named), None)
        if prompt is None:
            raise UserError(f"{path}:{number}: answers no prompt of the task")
        found.setdefault(prompt, []).append(answer)
    answered, answers = [], {}
    for prompt in prompts:
        for copy, answer in enumerate(found.get(prompt.id, [])):
            name = f"{prompt.id}~{copy}" if copy else prompt.id
            answered.append(prompt.model_copy(update={"id": name}))
            answers[name] = answer
    return answered, answers


def _lookup(prompts: Sequence[Prompt]) -> dict[str, str]:
    """Prompt id by id, by the id's last part (a bare key), and by a text that names only one."""
    texts = Counter(prompt.conversation.last for prompt in prompts)
    known: dict[str, str] = {}
    for prompt in prompts:
        if texts[prompt.conversation.last] == 1:
            known[prompt.conversation.last] = prompt.id
        known.setdefault(prompt.id.rpartition("/")[2], prompt.id)
    return {**known, **{prompt.id: prompt.id for prompt in prompts}}
