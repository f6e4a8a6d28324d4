"""Rows of other people's files, whatever they are kept in, and who and what a row speaks of.

Read are JSON lines, a JSON array, a CSV table, one JSON object of answers by id (also evalplus's
eval_results.json), a list of answers in the prompts' order (bigcode's generations.json), or a
folder of such files. Answers: plain, FastChat's, Arena-Hard's, BFCL's, OpenAI's replies and batch
files, a pair's two scores, and what lm-evaluation-harness logs (samples_TASK_*.jsonl).
"""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from flywright.data.rows import OPENERS, Row, placed_rows, read_lines
from flywright.errors import UserError
from flywright.records import Conversation

_IDS = ("id", "task_id", "question_id", "uid", "key", "name", "custom_id", "doc_id")
_ASKED = ("prompt", "instruction", "question", "problem", "text", "goal", "input", "query")
_TEXTS = ("response", "completion", "solution", "generation", "output", "result", "prediction")
_TEXTS += ("model_output", "generated_text", "output_2")
_INNER = ("body", "message", "content", "answer", "text")
_SCORES = ("score_{}", "{}_score", "scores_{}", "{}_reward")
_SIDES = ("chosen", "rejected")
_KINDS = (".json", ".jsonl", ".csv")
PLACE = "#place"


def placed(path: Path) -> Iterator[tuple[str, Row]]:
    """(where, row) of JSON lines, a JSON array or a CSV table with a head, packed or not.

    Raises UserError with file:line at the first row that cannot be read.
    """
    path = Path(path)
    yield from _table(path) if ".csv" in path.suffixes[-2:] else placed_rows(path)


def placed_answers(path: Path) -> Iterator[tuple[str, Row]]:
    """As `placed`, of a folder's files too, and of answers that are no rows.

    Of those in the prompts' order, PLACE holds which one it is.
    """
    path = Path(path)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if set(file.suffixes[-2:]) & set(_KINDS) and file.is_file():
                yield from placed_answers(file)
    elif (whole := _whole(path)) is not None:
        yield from _answers_of(str(path), whole)
    else:
        yield from placed(path)


def _table(path: Path) -> Iterator[tuple[str, Row]]:
    rows = csv.DictReader(line + "\n" for line in read_lines(path))
    try:
        for row in rows:
            if None in row or None in row.values():
                raise UserError(f"{path}:{rows.line_num}: not as many fields as the head has")
            yield f"{path}:{rows.line_num}", row
    except csv.Error as error:
        raise UserError(f"{path}:{rows.line_num}: not a table: {error}") from None


def _whole(path: Path) -> Any:
    """The value of a JSON file that is no rows: answers by id, or listed in the prompts' order."""
    if path.name.removesuffix(path.suffix if path.suffix in OPENERS else "").endswith(".json"):
        with suppress(ValueError):
            value = json.loads("\n".join(read_lines(path)))
            rows = value if isinstance(value, list) else [value]
            named = any(isinstance(row, dict) and names_in(row) + texts_in(row) for row in rows)
            plain = isinstance(value, dict) or all(isinstance(one, str | list) for one in rows)
            return value if rows and plain and not named else None
    return None


def _answers_of(where: str, value: Any) -> Iterator[tuple[str, Row]]:
    columns = value if isinstance(value, dict) and isinstance(value.get("id"), list) else {}
    kept = {name: one for name, one in columns.items() if isinstance(one, list)}
    if kept:  # RewardBench's stored scores: a list a field
        for number, row in enumerate(zip(*kept.values(), strict=False), start=1):
            yield f"{where}: row {number}", dict(zip(kept, row, strict=True))
        return
    if isinstance(value, dict):
        value = value.get("eval", value)
        pairs = [({"id": name}, said) for name, said in value.items()]
    else:
        pairs = [({PLACE: number}, said) for number, said in enumerate(value)]
    for number, (name, said) in enumerate(pairs, start=1):
        for one in said if isinstance(said, list) else [said]:
            row = one if isinstance(one, dict) else {"response": one}
            yield f"{where}: answer {number}", {**row, **name}


def need(where: str, row: Row, *names: str) -> Any:
    """The first of these fields. Raises UserError saying where it is missing."""
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise UserError(f"{where}: a row without {' or '.join(map(repr, names))}")


def talk(where: str, messages: Sequence[Row], *system: str) -> Conversation:
    """A conversation of {role, content} messages that awaits an answer.

    System messages go to the front, neighbours of one role become one message, and an assistant's
    first words are left out. Raises UserError where nobody asks anything.
    """
    said = [message for message in messages if message.get("role") != "system"]
    before = [*system, *(need(where, m, "content") for m in messages if m not in said)]
    turns: list[str] = []
    roles = groupby(said, key=lambda message: need(where, message, "role"))
    for role, group in roles:
        if turns or role == "user":
            turns.append("\n\n".join(need(where, message, "content") for message in group))
    if len(turns) % 2 == 0:
        raise UserError(f"{where}: its messages do not end with a user's")
    return Conversation.of(*turns, system="\n\n".join(before))


def names_in(row: Row) -> list[str]:
    """All that a row may name its prompt by: ids, and their last parts."""
    inner = row["doc"] if isinstance(row.get("doc"), dict) else {}
    ids = [str(of[name]).lower() for of in (row, inner) for name in _IDS if _is_name(of.get(name))]
    return [*ids, *(name.rpartition("/")[2] for name in ids if "/" in name)]


def texts_in(row: Row) -> list[str]:
    """The words of the prompt that a row may hold; of a logged raw prompt, its end."""
    inner = row["doc"] if isinstance(row.get("doc"), dict) else {}
    found = [str(row[name]).strip() for name in _ASKED if isinstance(row.get(name), str)]
    found += [str(value).strip() for value in inner.values() if isinstance(value, str)]
    given = row.get("arguments") if "resps" in row else None
    while given and isinstance(given, dict | list):
        given = next(iter(given.values())) if isinstance(given, dict) else given[0]
    return [*found, ending(given)] if isinstance(given, str) else found


def ending(text: str) -> str:
    """The end of a raw prompt, after its examples: what names the problem there."""
    return text.rpartition("\n\n")[2][-400:].strip()


def _is_name(value: Any) -> bool:
    return isinstance(value, str | int) and len(str(value)) < 200


def answers_in(row: Row) -> list[str]:
    """What a row answers, mostly one text; JSON where an answer is no single text."""
    if "resps" in row:
        return _logged(row["resps"])
    for name in _TEXTS:
        if row.get(name) is not None:
            value = row[name]
            inner = value.get("body", value) if isinstance(value, dict) else {}
            return answers_in(inner) if "choices" in inner else [_text(value)]
    if row.get("choices"):
        turns = row["choices"][0].get("turns")
        if turns is None:
            return [_text(choice) for choice in row["choices"]]
        said = [_text(turn) for turn in turns]
        return said if len(said) == 1 else [json.dumps(said)]
    if row.get("messages"):
        return [_text(row["messages"][-1])]
    for form in _SCORES:
        both = [row.get(form.format(side)) for side in _SIDES]
        if None not in both:
            plain = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in both]
            return [json.dumps(dict(zip(_SIDES, plain, strict=True)))]
    return [json.dumps(row["scores"])] if "scores" in row else []


def _logged(resps: Any) -> list[str]:
    """lm-evaluation-harness's: texts of one request, or [log-likelihood, greedy] of each choice."""
    with suppress(ValueError, TypeError, IndexError, KeyError):
        if isinstance(resps[0][0], str):
            return list(resps[0])
        return [json.dumps([float(one[0][0]) for one in resps])]
    return []


def _text(value: Any) -> str:
    while isinstance(value, dict):
        inner = next((value[key] for key in _INNER if value.get(key) is not None), None)
        if inner is None:
            break
        value = inner
    return value if isinstance(value, str) else json.dumps(value)
