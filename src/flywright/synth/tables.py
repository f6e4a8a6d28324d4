"""Questions about documents and tables, with answers that a program checks (SPEC 6.8).

Rows as FinQA ({question, table, program} or {qa}), TAT-QA ({table, paragraphs, questions}) and
WikiTableQuestions ({utterance, context, targetValue}, tables in CSV files) have them. They become
prompts with ground truth; `solved` keeps what a model answers to them rightly.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import Field

from flywright.ask.protocol import Completer
from flywright.data.rows import placed_rows, read_lines
from flywright.errors import UserError
from flywright.files import seed_from
from flywright.judge import truth
from flywright.records import Check, Conversation, Dialogue, Lineage, Prompt, record_id
from flywright.settings import Settings
from flywright.synth.flow import Dropped
from flywright.synth.maker import Maker
from flywright.synth.wording import template, variants

_STEP = re.compile(r"(\w+)\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
_ACTS = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "exp": lambda a, b: a**b,
    "greater": lambda a, b: float(a > b),
}
_OVER_ROW = {"table_average": fmean, "table_sum": sum, "table_max": max, "table_min": min}


class TableSettings(Settings):
    """How many rows, and how often a model may try each."""

    questions: int = Field(default=10_000, ge=1, description="most rows taken, in file order")
    characters: int = Field(default=6000, ge=100, description="longest document with its table")
    tries: int = Field(default=4, ge=0, description="answers tried; 0 = prompts, nobody is asked")


def number(text: str) -> float:
    """A table cell's or a program's number: "$ 1,452.4", "(12)", "12%", "const_m1". ValueError."""
    text = text.strip().replace("const_m", "-").removeprefix("const_")
    found = re.search(r"(\(?-?)[$€£\s]*-?\s*(\d[\d,]*(?:\.\d+)?|\.\d+)\s*(%?)", text)
    if not found:
        raise ValueError(f"no number in {text!r}")
    value = float(found.group(2).replace(",", "")) / (100 if found.group(3) else 1)
    return -value if "-" in text or found.group(1).startswith("(") else value


def computed(program: str, table: Sequence[Sequence[str]]) -> float:
    """What a FinQA program gives. Raises ValueError or ZeroDivisionError where it gives nothing."""
    done: list[float] = []
    for act, inside in _STEP.findall(program):
        if act in _OVER_ROW:
            name = inside.rpartition(",")[0].strip()
            cells = next((row[1:] for row in table if row and row[0].strip() == name), [])
            done.append(float(_OVER_ROW[act]([number(cell) for cell in cells if cell.strip()])))
        elif act in _ACTS:
            words = [part.strip() for part in inside.split(",")]
            one, two = (done[int(w[1:])] if w[0] == "#" else number(w) for w in words)
            done.append(_ACTS[act](one, two))
    if not done:
        raise ValueError(f"no program: {program!r}")
    return done[-1]


def _drawn(table: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(" ".join(cell.split()) for cell in row) + " |" for row in table)


def _finqa(row: dict[str, Any]) -> Iterator[tuple[str, str, Check]]:
    asked = {**row, **row.get("qa", {})}
    value = asked["exe_ans"] if "exe_ans" in asked else computed(asked["program"], row["table"])
    around = (row.get("pre_text") or []), (row.get("post_text") or row.get("contexts") or [])
    text = "\n\n".join(filter(None, (" ".join(around[0]), _drawn(row["table"]), " ".join(around[1]))))
    greater = isinstance(value, str) or asked.get("program", "").startswith("greater")
    said = value if isinstance(value, str) else ("no", "yes")[bool(value)]
    right = Check(kind="items", args={"answer": [said]}) if greater else _rounded(value)
    yield text, asked["question"], right


def _rounded(value: float) -> Check:
    return Check(kind="rounded", args={"answer": value})


def _tatqa(row: dict[str, Any]) -> Iterator[tuple[str, str, Check]]:
    text = "\n\n".join([_drawn(row["table"]["table"]), *(each["text"] for each in row["paragraphs"])])
    for asked in row["questions"]:
        said, question = asked["answer"], asked["question"]
        if isinstance(said, list):
            yield text, question, Check(kind="items", args={"answer": said})
        else:
            unit = f" (in {asked['scale']})" if asked.get("scale") else ""
            yield text, question + unit, _rounded(float(said))


def _wtq(row: dict[str, Any], folder: Path) -> Iterator[tuple[str, str, Check]]:
    lines = read_lines(folder / row["context"])
    table = list(csv.reader(lines, escapechar="\\"))
    wanted = [each.replace("\\p", "|") for each in row["targetValue"].split("|")]
    yield _drawn(table), row["utterance"], Check(kind="items", args={"answer": wanted})


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if ".tsv" not in path.name:
        yield from placed_rows(path)
        return
    names, *lines = (line.split("\t") for line in read_lines(path))
    yield from ((f"{path}:{n}", dict(zip(names, line, strict=False))) for n, line in enumerate(lines, 2))


def table_prompts(path: Path, settings: TableSettings, seed: int) -> tuple[list[Prompt], dict[str, int]]:
    """The rows' questions as prompts with their truth, and counts {in, out, and why dropped}.

    A CSV's path is taken from the folder of `path`. Raises UserError at a row of none of the forms.
    """
    made: list[Prompt] = []
    counts = {"in": 0, "out": 0}
    joins = variants("tables_join")
    for where, row in _rows(path):
        try:
            read = _tatqa(row) if "questions" in row else _wtq(row, path.parent) if "context" in row else _finqa(row)
            for text, question, check in read:
                if counts["in"] == settings.questions:
                    return made, counts
                counts["in"] += 1
                if len(text) > settings.characters:
                    counts["dropped: too long"] = counts.get("dropped: too long", 0) + 1
                    continue
                counts["out"] += 1
                join = joins[seed_from(seed, text, question) % len(joins)]
                asked = Conversation.of(join.text.format(document=text, question=question))
                lineage = Lineage(source="tables", answer_by="human", template=join.hash, seed=seed, parents=(record_id(text),))
                made.append(Prompt(id=record_id("tables", asked.last), conversation=asked, task="tables", checks=(check,), lineage=lineage))
        except (ValueError, ZeroDivisionError, OverflowError):
            counts["in"] += 1
            counts["dropped: program gives nothing"] = counts.get("dropped: program gives nothing", 0) + 1
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{where}: no row of FinQA, TAT-QA or WikiTableQuestions: {error!r}") from None
    return made, counts


async def solved(maker: Maker, prompts: Sequence[Prompt], tries: int) -> list[Dialogue]:
    """The first right answer to each prompt, of at most `tries`; the others are dropped."""
    wording = template("tables_answer")

    async def step(prompt: Prompt, ask: Completer) -> list[Dialogue]:
        question = wording.fill(prompt=prompt.conversation.last)
        for attempt in range(tries):
            said, sampling = await maker.say(ask, question, "tables", prompt.id, attempt)
            if await truth.is_right(prompt, said):
                lineage = maker.lineage("tables", wording, sampling, (prompt.id, *prompt.lineage.parents), answer_by="model", filters=("right",))
                answered = prompt.conversation.answered(said)
                return [Dialogue(id=record_id("tables", prompt.id, said), conversation=answered, task="tables", lineage=lineage)]
        raise Dropped("no right answer")

    return await maker.run("tables", step, prompts)
