"""Files that others wrote, read into records: texts, pairs, dialogues and ratings of public sets.

A reader is named after the form that it reads; it counts what it has to leave out, and why.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from flywright.errors import UserError
from flywright.evals.datafiles import read_lines, read_rows
from flywright.evals.gsm8k import REQUEST
from flywright.evals.likelihood import question
from flywright.files import digest
from flywright.judge.language import detect
from flywright.records import (
    ATTRIBUTES,
    Comparison,
    Conversation,
    Dialogue,
    Document,
    Lineage,
    Rating,
    record_id,
)
from flywright.settings import Settings
from flywright.synth.filters import normal

AnyFound = TypeVar("AnyFound")
PairForm = Literal["hh", "hhh", "pandalm"]
DialogueForm = Literal["oasst_trees", "oasst_texts", "alpaca", "self_instruct", "gsm8k"]
Row = dict[str, Any]
SIDES = ("chosen", "rejected")
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


def rows(path: Path) -> Iterator[Row]:
    """The objects of a JSON array or of JSON lines. Raises UserError where it is neither."""
    if not next(read_lines(path), "").lstrip().startswith("["):
        yield from read_rows(path)
        return
    try:
        yield from json.loads("\n".join(read_lines(path)))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def read(path: Path, reader: Callable[[Row], AnyFound]) -> Iterator[AnyFound]:
    """What `reader` makes of each row. Raises UserError for a row of another form."""
    for number, row in enumerate(rows(path), start=1):
        try:
            found = reader(row)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            line = f"{path}: not of the form that is stated: row {number}: no {error}"
            raise UserError(line) from None
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
        found = read(path, lambda row: (row[of.field], of.language or row.get("lang", "")))
    for text, language in found:
        words = re.sub(r"```.*?```", "", text, flags=re.S)  # code in a page is in no language
        english = of.language not in ("", "en", "code") and detect(words) == "en"
        yield Document(text=text, source=source, language="en" if english else language)


def _parallel(path: Path) -> Iterator[tuple[str, str]]:
    told = read(path, lambda row: (row["lang"], f"{row['eng']}\n{row['text']}"))
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


def _turns(text: str, mark: str) -> list[str] | None:
    """What is said in turn, the human first; None where it is not in turn or something is empty."""
    parts = re.split(mark + r"(Human|Assistant):", text)[1:]
    speakers, said = parts[::2], [part.strip() for part in parts[1::2]]
    expected = ["Human", "Assistant"] * len(said)
    return said if all(said) and said and speakers == expected[: len(said)] else None


Pair = tuple[list[str], str, str] | str  # question and turns, chosen, rejected; or why it is none


def _hh(row: Row) -> Pair:
    chosen, rejected = (_turns(row[side], "\n\n") for side in SIDES)
    if chosen is None or rejected is None:
        return "not in turn"
    if chosen[:-1] != rejected[:-1]:
        return "two prompts"
    return chosen[:-1], chosen[-1], rejected[-1]


def _pandalm(row: Row) -> Pair:
    votes = Counter(row[f"annotator{number}"] for number in (1, 2, 3))
    best, count = votes.most_common(1)[0]
    if best not in (1, 2) or count < 2:
        return "no majority for either"
    asked = "\n\n".join(part for part in (row["instruction"], row["input"]) if part)
    return [asked], row[f"response{best}"], row[f"response{3 - best}"]


_JUDGED = re.compile(
    r"instruction to evaluate:\n(.*?)\n+###Response to evaluate:\n(.*?)\n+###Score", re.S
)


def _hhh(row: Row) -> Pair:
    chosen, rejected = (_JUDGED.search(row[f"{side}_instruction"]) for side in SIDES)
    if chosen is None or rejected is None or chosen[1] != rejected[1]:
        return "two prompts"
    said = _turns("\n\nHuman: " + chosen[1], "\n\n") or [chosen[1]]
    return (said, chosen[2], rejected[2]) if len(said) % 2 else "not in turn"


PAIRS: dict[str, Callable[[Row], Pair]] = {"hh": _hh, "hhh": _hhh, "pandalm": _pandalm}


def pairs(form: str, path: Path, dropped: Counter[str]) -> Iterator[Comparison]:
    """Pairs that people decided; ties, empty and equal answers are left out and counted."""
    for found in read(path, PAIRS[form]):
        if isinstance(found, str):
            dropped[f"{form}: {found}"] += 1
        elif not _words(*found[1:]) or found[1] == found[2]:
            dropped[f"{form}: answers equal, empty or not text"] += 1
        else:
            said, chosen, rejected = found
            yield Comparison(
                id=record_id(form, *found),
                conversation=Conversation.of(*said),
                chosen=chosen,
                rejected=rejected,
                judge="person",
                task=form,
                lineage=Lineage(source=form, answer_by="model"),
            )


def _words(*found: Any) -> bool:
    """True if all are texts that say something."""
    return all(isinstance(text, str) and text.strip() for text in found)


def _oasst_trees(row: Row) -> list[str] | None:
    """The best-ranked answer to each question, down the tree."""
    node, said = row["prompt"], []
    while node:
        said.append(node["text"])
        node = min(node["replies"], key=lambda reply: reply.get("rank") or 0, default=None)
    return said[: len(said) // 2 * 2]


def _oasst_texts(row: Row) -> list[str] | None:
    return _turns(
        row["input"].removesuffix("### Assistant:") + f"### Assistant: {row['output']}", "### "
    )


def _alpaca(row: Row) -> list[str] | None:
    asked = re.search(r"### Instruction:\n(.*?)\n+### Response:", row["prompt"], re.S)
    return [asked[1], row["response"]] if asked else None


def _self_instruct(row: Row) -> list[str] | None:
    example = row["instances"][0]
    return [f"{row['instruction']}\n\n{example['input']}".strip(), example["output"]]


def _gsm8k(row: Row) -> list[str] | None:
    """The steps without their calculator notes, and the number on a line of its own."""
    steps = re.sub(r"<<.*?>>", "", row["answer"]).replace("#### ", "")
    return [row["question"] + REQUEST, steps]


DIALOGUES: dict[str, Callable[[Row], list[str] | None]] = {
    "oasst_trees": _oasst_trees,
    "oasst_texts": _oasst_texts,
    "alpaca": _alpaca,
    "self_instruct": _self_instruct,
    "gsm8k": _gsm8k,
}


def dialogues(form: str, path: Path, dropped: Counter[str]) -> Iterator[Dialogue]:
    """Dialogues to learn from; what is not in turn or has an empty turn is counted."""
    for said in read(path, DIALOGUES[form]):
        if not said or len(said) % 2 or not _words(*said):
            dropped[f"{form}: not in turn, or empty"] += 1
            continue
        yield Dialogue(
            id=record_id(form, *said),
            conversation=Conversation.of(*said),
            task=form,
            lineage=Lineage(source=form, answer_by="human"),
        )


def quizzes(path: Path, source: str) -> Iterator[Document]:
    """Question-answer texts of {question, choices, gold} rows, in the form that evals asks in."""

    def text(row: Row) -> str:
        return f"{question(row['question'])} {row['choices'][row['gold']]}"

    return (Document(text=found, source=source) for found in read(path, text))


def ratings(path: Path) -> Iterator[Rating]:
    """HelpSteer2's rows: prompt, response and five attributes; rows 2k and 2k + 1 share a prompt.

    A prompt of several turns has their marks in its text (SPEC 12.3).
    """
    for number, row in enumerate(read_rows(path), start=1):
        try:
            said = re.split(r"\n?<extra_id_1>(?:User|Assistant)\n", row["prompt"])
            if len(said) % 2 == 0:
                raise ValueError("the prompt does not end with the user's words")
            yield Rating(
                id=record_id("rating", number, row["prompt"], row["response"]),
                conversation=Conversation.of(*said, row["response"]),
                **{name: row.get(name) for name in ATTRIBUTES},
                lineage=Lineage(source=path.name, answer_by="model"),
            )
        except (KeyError, ValueError) as error:
            raise UserError(f"{path}: row {number}: not a rating: {error}") from None
