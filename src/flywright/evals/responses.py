"""What others made, matched to a task's prompts: their answers, and their judges' verdicts.

A file, or a folder of them, in the benchmark's own layout or in that of a harness (tables.py). A
row names its prompt by the prompt's words, by its id ("id", "question_id", "task_id", "uid",
"key", ...), or as lm-evaluation-harness logs it. A prompt may be answered several times.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flywright.data.rows import Row
from flywright.errors import UserError
from flywright.evals.tables import PLACE, answers_in, ending, names_in, placed_answers, texts_in
from flywright.records import Prompt

JUDGED = "judgments"  # the argument of a prompt's first check that holds its stored judgments


def match(
    path: Path, prompts: Sequence[Prompt], request: str = ""
) -> tuple[list[Prompt], dict[str, str]]:
    """(the prompts that were answered, answer by prompt id), in the prompts' order.

    A second answer to a prompt becomes a prompt of its own, "ID~1", so that the mean over items is
    the mean over samples. `request`: what the task adds to a problem's own words. Raises UserError
    with file:line for a row that answers no prompt.
    """
    found = _by_prompt(path, prompts, request)
    answered, answers = [], {}
    for prompt in prompts:
        given: list[str] = []
        for where, row in found.get(prompt.id, []):
            texts = answers_in(row)
            if not texts:
                raise UserError(f"{where}: none of its fields holds an answer: {', '.join(row)}")
            given += texts
        for copy, text in enumerate(given):
            name = f"{prompt.id}~{copy}" if copy else prompt.id
            answered.append(prompt.model_copy(update={"id": name}))
            answers[name] = text
    if not answered:
        raise UserError(f"{path}: no answer in it")
    return answered, answers


def judged(path: Path, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that a file of judgments speaks of, each with its rows as data.

    FILE#MODEL takes the rows of one model. Raises UserError where there are several and none named.
    """
    name, _, wanted = str(path).partition("#")
    found = _by_prompt(Path(name), prompts)
    models = {_model(row) for rows in found.values() for _, row in rows}
    if (wanted or len(models) > 1) and wanted not in models:
        said = f"says nothing of {wanted}: name" if wanted else "judges several models; add #MODEL,"
        raise UserError(f"{name}: {said} one of {', '.join(sorted(models))}")
    kept = {id_: [r for _, r in rows if wanted in ("", _model(r))] for id_, rows in found.items()}
    return [_with(prompt, kept[prompt.id]) for prompt in prompts if kept.get(prompt.id)]


def _model(row: Row) -> str:
    return str(row.get("model") or row.get("generator_2") or "")


def _with(prompt: Prompt, rows: Sequence[Row]) -> Prompt:
    first = prompt.checks[0]
    args = {**first.args, JUDGED: rows}
    checks = (first.model_copy(update={"args": args}), *prompt.checks[1:])
    return prompt.model_copy(update={"checks": checks})


def _by_prompt(
    path: Path, prompts: Sequence[Prompt], request: str = ""
) -> dict[str, list[tuple[str, Row]]]:
    texts, names = _book(prompts, request)
    found: dict[str, list[tuple[str, Row]]] = defaultdict(list)
    turns: Counter[tuple[str, ...]] = Counter()
    filters: dict[tuple[str, str], str] = {}
    for number, (where, row) in enumerate(placed_answers(path)):
        if row.get(PLACE, len(prompts)) < len(prompts):
            row = {**row, "id": prompts[row[PLACE]].id}
        alike = tuple(_first(texts, texts_in(row)))
        called = _first(names, names_in(row))
        fits = [name for name in alike if name in called] or list(alike) or called
        if not fits or (len(fits) > 1 and not alike):
            raise UserError(f"{where}: answers no prompt of the task")
        prompt = fits[turns[alike] % len(fits)]
        if "filter" in row:  # a harness's row stands there once for each filter of its answer
            known = filters.setdefault((prompt, str(row.get("doc_id", number))), row["filter"])
            if known != row["filter"]:
                continue
        turns[alike] += len(fits) > 1
        found[prompt].append((where, row))
    return found


def _first(book: Mapping[str, list[str]], keys: Sequence[str]) -> list[str]:
    return next((book[key] for key in keys if key in book), [])


def _book(
    prompts: Sequence[Prompt], request: str
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Prompt ids by what is asked (its words, or the end of a raw text), and by id or its end."""
    texts: dict[str, list[str]] = defaultdict(list)
    names: dict[str, list[str]] = defaultdict(list)
    for prompt in prompts:
        words = prompt.conversation.last
        args: dict[str, Any] = prompt.checks[0].args if prompt.checks else {}
        raw = [args["asks"][0][0]] if "asks" in args else [args.get("context", "")]
        keys = {words.strip(), words.replace(request, "").strip() if request else ""}
        keys |= {str(args.get("head", "")).strip(), *(ending(text) for text in raw)}
        for key in keys - {""}:
            texts[key].append(prompt.id)
        for key in {prompt.id.lower(), prompt.id.rpartition("/")[2].lower()}:
            names[key].append(prompt.id)
    return texts, names
