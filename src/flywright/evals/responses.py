"""What others made, matched to a task's prompts: their answers, and their judges' verdicts.

Rows hold whom they speak of ("id", "question_id", "uid", "key", "prompt", ...) and what was said,
as our own files have it or as the benchmark's do (tables.py). A row may come several times.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flywright.errors import UserError
from flywright.evals.tables import answer_in, named, placed
from flywright.records import Prompt

JUDGED = "judgments"  # the argument of a prompt's first check that holds its stored judgments


def match(path: Path, prompts: Sequence[Prompt]) -> tuple[list[Prompt], dict[str, str]]:
    """(the prompts that were answered, answer by prompt id), in the prompts' order.

    A second answer to a prompt becomes a prompt of its own, "ID~1", so that the mean over items is
    the mean over samples. Raises UserError with file:line for a line that answers no prompt.
    """
    found = _by_prompt(path, prompts)
    answered, answers = [], {}
    for prompt in prompts:
        for copy, (where, row) in enumerate(found.get(prompt.id, [])):
            answer = answer_in(row)
            if answer is None:
                raise UserError(f"{where}: none of its fields holds an answer: {', '.join(row)}")
            name = f"{prompt.id}~{copy}" if copy else prompt.id
            answered.append(prompt.model_copy(update={"id": name}))
            answers[name] = answer
    return answered, answers


def judged(path: Path, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that a file of judgments speaks of, each with its rows as data.

    FILE#MODEL takes the rows of one model. Raises UserError where there are several and none named.
    """
    name, _, wanted = str(path).partition("#")
    found = _by_prompt(Path(name), prompts)
    models = {_model(row) for rows in found.values() for _, row in rows}
    if len(models) > 1 and wanted not in models:
        raise UserError(
            f"{name}: judges several models; add #MODEL, one of {', '.join(sorted(models))}"
        )
    kept = {id_: [r for _, r in rows if wanted in ("", _model(r))] for id_, rows in found.items()}
    return [_with(prompt, kept[prompt.id]) for prompt in prompts if kept.get(prompt.id)]


def _model(row: dict[str, Any]) -> str:
    return str(row.get("model") or row.get("generator_2") or "")


def _with(prompt: Prompt, rows: Sequence[dict[str, Any]]) -> Prompt:
    first = prompt.checks[0]
    args = {**first.args, JUDGED: rows}
    checks = (first.model_copy(update={"args": args}), *prompt.checks[1:])
    return prompt.model_copy(update={"checks": checks})


def _by_prompt(
    path: Path, prompts: Sequence[Prompt]
) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    known = _lookup(prompts)
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for where, row in placed(path):
        prompt = next(filter(None, map(known.get, named(row))), None)
        if prompt is None:
            raise UserError(f"{where}: answers no prompt of the task")
        found.setdefault(prompt, []).append((where, row))
    return found


def _lookup(prompts: Sequence[Prompt]) -> dict[str, str]:
    """Prompt id by id, by the id's last part (a bare key), and by a text that names only one."""
    texts = Counter(prompt.conversation.last for prompt in prompts)
    known: dict[str, str] = {}
    for prompt in prompts:
        if texts[prompt.conversation.last] == 1:
            known[prompt.conversation.last] = prompt.id
        known.setdefault(prompt.id.rpartition("/")[2], prompt.id)
    return {**known, **{prompt.id: prompt.id for prompt in prompts}}
