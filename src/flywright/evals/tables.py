"""Rows of other people's files, whatever they are kept in, and who and what a row speaks of."""

import csv
import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from flywright.data.rows import Row, placed_rows, read_lines
from flywright.errors import UserError
from flywright.records import Conversation

_NAMES = ("id", "task_id", "question_id", "uid", "key", "prompt", "instruction")
_TEXTS = ("response", "completion", "output", "result", "output_2")
_SCORES = ("score_{}", "{}_score", "scores_{}", "{}_reward")
_SIDES = ("chosen", "rejected")


def placed(path: Path) -> Iterator[tuple[str, Row]]:
    """(where, row) of JSON lines, a JSON array or a CSV table with a head, packed or not.

    Raises UserError with file:line at the first row that cannot be read.
    """
    path = Path(path)
    if ".csv" not in path.suffixes[-2:]:
        yield from placed_rows(path)
        return
    rows = csv.DictReader(line + "\n" for line in read_lines(path))
    try:
        for row in rows:
            if None in row or None in row.values():
                raise UserError(f"{path}:{rows.line_num}: not as many fields as the head has")
            yield f"{path}:{rows.line_num}", row
    except csv.Error as error:
        raise UserError(f"{path}:{rows.line_num}: not a table: {error}") from None


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


def named(row: Row) -> list[str]:
    """All that a row may name its prompt by."""
    return [str(row[name]) for name in _NAMES if isinstance(row.get(name), str | int)]


def answer_in(row: Row) -> str | None:
    """What a row answers, in any of the benchmarks' own layouts; JSON where it is no single text.

    FastChat's choices[0].turns, Arena-Hard's messages, BFCL's result, a pair's two scores.
    """
    for name in _TEXTS:
        if row.get(name) is not None:
            return _text(row[name])
    if row.get("choices"):
        turns = [_text(turn) for turn in row["choices"][0]["turns"]]
        return turns[0] if len(turns) == 1 else json.dumps(turns)
    if row.get("messages"):
        return _text(row["messages"][-1])
    for form in _SCORES:
        both = [row.get(form.format(side)) for side in _SIDES]
        if None not in both:
            return json.dumps(dict(zip(_SIDES, both, strict=True)))
    return json.dumps(row["scores"]) if "scores" in row else None


def _text(value: Any) -> str:
    while isinstance(value, dict) and (inner := value.keys() & {"content", "answer"}):
        value = value[min(inner)]
    return value if isinstance(value, str) else json.dumps(value)
