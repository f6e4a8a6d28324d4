"""Files that others wrote: texts to pretrain on, and records in the forms of `data.forms`."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from flywright.data.formats import open_records
from flywright.data.forms import FORMS, Form, has
from flywright.data.rows import Row, placed_rows, read_lines
from flywright.errors import UserError
from flywright.evals.gsm8k import REQUEST
from flywright.evals.likelihood import question
from flywright.files import digest
from flywright.judge.language import detect
from flywright.records import Conversation, Dialogue, Document
from flywright.settings import Settings
from flywright.synth.filters import normal

AnyFound = TypeVar("AnyFound")
PairForm = Literal["hh", "hhh", "pandalm"]
DialogueForm = Literal["oasst_trees", "oasst_texts", "alpaca", "self_instruct", "gsm8k"]
PIECE = 4000  # characters: long texts are cut at the ends of paragraphs


class TextSet(Settings):
    """A file of texts to pretrain on, and how much of it is taken.

    rows: JSONL with the text in `field`; lines: each line is a text; parallel: JSONL {lang, text,
    eng}, sixteen rows of one language a text. language "": each row says it in "lang".
    """

    path: str
    form: Literal["rows", "lines", "parallel"] = "rows"
    field: str = "text"
    language: str = "en"
    megabytes: float = Field(default=8.0, gt=0)


def _told(path: Path, reader: Callable[[Row], AnyFound]) -> Iterator[AnyFound]:
    """What `reader` makes of each row. Raises UserError for a row of another form."""
    for where, row in placed_rows(path):
        try:
            found = reader(row)
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(f"{where}: not of the form that is stated: no {error}") from None
        yield found


def pieces(document: Document) -> Iterator[Document]:
    """The document in parts of at most PIECE characters, cut at ends of paragraphs if possible."""
    rest = document.text
    while len(rest) > PIECE:
        cut = rest.rfind("\n", PIECE // 2, PIECE) + 1 or PIECE
        yield document.model_copy(update={"text": rest[:cut]})
        rest = rest[cut:]
    yield document.model_copy(update={"text": rest})


def texts(path: Path, of: TextSet, source: str) -> Iterator[Document]:
    """The whole texts of a set. What a set in another language has in English counts as English."""
    found: Iterator[tuple[str, str]]
    if of.form == "lines":
        found = ((line, of.language) for line in read_lines(path))
    elif of.form == "parallel":
        found = _parallel(path)
    else:
        found = _told(path, lambda row: (row[of.field], of.language or row.get("lang", "")))
    for text, language in found:
        words = re.sub(r"```.*?```", "", text, flags=re.S)  # code in a page is in no language
        english = of.language not in ("", "en", "code") and detect(words) == "en"
        yield Document(text=text, source=source, language="en" if english else language)


def _parallel(path: Path) -> Iterator[tuple[str, str]]:
    told = _told(path, lambda row: (row["lang"], f"{row['eng']}\n{row['text']}"))
    for language, group in groupby(told, key=itemgetter(0)):
        lines = [line for _, line in group]
        for start in range(0, len(lines), 16):
            yield "\n".join(lines[start : start + 16]), language


def key(text: str) -> str:
    """What makes two texts the same: their words, whatever the case and the spacing."""
    return digest(normal(text))


def place(text: str) -> float:
    """Where a text stands between 0 and 1, by its key: what splits are made by."""
    return int(key(text)[:8], 16) / 16**8


def opening(conversation: Conversation) -> str:
    """The key of a conversation's first question: what decides on which side of a split it is."""
    return key(conversation.turns[0].content)


def _gsm8k(row: Row) -> dict[str, Any]:
    """The steps without their calculator notes, and the number on a line of its own."""
    steps = re.sub(r"<<.*?>>", "", row["answer"]).replace("#### ", "")
    return {"conversation": Conversation.of(row["question"] + REQUEST, steps)}


GSM8K = Form("gsm8k", Dialogue, has(question=str, answer=str), _gsm8k, "human")
read = partial(open_records, forms=(*FORMS, GSM8K))


def quizzes(path: Path, source: str) -> Iterator[Document]:
    """Question-answer texts of {question, choices, gold} rows, in the form that evals asks in."""

    def text(row: Row) -> str:
        return f"{question(row['question'])} {row['choices'][row['gold']]}"

    return (Document(text=found, source=source) for found in _told(path, text))
