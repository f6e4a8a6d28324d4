"""Questions whose answers a program checks: mathematics, documents and tables (SPEC 6.7, 6.8).

Rows as GSM8K ({question, answer} with ####), MATH ({problem, solution}), FinQA ({question, table,
program} or {qa}) and WikiTableQuestions ({utterance, context, targetValue}, tables in CSV files)
have them. They become prompts with ground truth, for
comparisons too; `solved` keeps what a model answers to them rightly.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import add, mul, pow, sub, truediv
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import Field

from flywright.ask.protocol import Completer
from flywright.data.rows import Row, placed_rows, read_lines
from flywright.errors import UserError
from flywright.files import seed_from
from flywright.judge import truth
from flywright.judge.answers import final
from flywright.records import Check, Conversation, Dialogue, Lineage, Prompt, record_id
from flywright.settings import Settings
from flywright.synth.flow import Dropped
from flywright.synth.maker import Maker
from flywright.synth.wording import template, variants

_STEP = re.compile(r"(\w+)\(((?:[^()]|\([^()]*\))*)\)")
_ACTS = {"add": add, "subtract": sub, "multiply": mul, "divide": truediv, "exp": pow}
_OVER_ROW = {"average": fmean, "sum": sum, "max": max, "min": min}
Asked = tuple[str, str, str, Check]  # family, document, question, and what is right


class ProblemSettings(Settings):
    """How many questions, and how often a model may try each."""

    most: int = Field(default=100_000, ge=1, description="questions, in file order")
    characters: int = Field(default=6000, ge=100, description="longest document with its table")
    tries: int = Field(default=4, ge=0, description="answers tried; 0 = prompts, nobody is asked")


def number(text: str) -> float:
    """A cell's or a program's number: "$ 1,452.4", "(12)", "12%", "const_m1". Raises ValueError."""
    text = text.strip().replace("const_m", "-").removeprefix("const_")
    found = re.search(r"(\(?-?)[$€£\s]*-?\s*(\d[\d,]*(?:\.\d+)?|\.\d+)\s*(%?)", text)
    if not found:
        raise ValueError(f"no number in {text!r}")
    value = float(found[2].replace(",", "")) / (100 if found[3] else 1)
    return -value if "-" in found[0] or found[1].startswith("(") else value


def computed(program: str, table: Sequence[Sequence[str]]) -> float | bool:
    """What a FinQA program gives. Raises ValueError, ZeroDivisionError or the like for nothing."""
    done: list[Any] = []
    for act, inside in _STEP.findall(program):
        if act.startswith("table_"):
            name = inside.rpartition(",")[0].strip()
            cells = next((row[1:] for row in table if row and row[0].strip() == name), [])
            found = [number(cell) for cell in cells if cell.strip()]
            done.append(_OVER_ROW[act.removeprefix("table_")](found))
        else:
            words = [part.strip() for part in inside.split(",")]
            one, two = (done[int(w[1:])] if w[0] == "#" else number(w) for w in words)
            done.append(one > two if act == "greater" else _ACTS[act](one, two))
    return done[-1]


def _right(kind: str, answer: Any) -> Check:
    return Check(kind=kind, args={"answer": answer})


def _finqa(row: Row) -> Asked:
    asked = {**row, **row.get("qa", {})}
    value = asked["exe_ans"] if "exe_ans" in asked else computed(asked["program"], row["table"])
    before, after = row.get("pre_text") or [], row.get("post_text") or row.get("contexts") or []
    text = "\n\n".join(filter(None, (" ".join(before), _drawn(row["table"]), " ".join(after))))
    if isinstance(value, bool):
        value = "yes" if value else "no"
    right = _right("items", [value]) if isinstance(value, str) else _right("rounded", float(value))
    return "finqa", text, asked["question"], right


def _wtq(row: Row, folder: Path) -> Asked:
    table = list(csv.reader(read_lines(folder / row["context"]), escapechar="\\"))
    wanted = [each.replace("\\p", "|") for each in row["targetValue"].split("|")]
    return "wikitablequestions", _drawn(table), row["utterance"], _right("items", wanted)


def _drawn(table: Sequence[Sequence[str]]) -> str:
    cells = ([" ".join(cell.split()) for cell in row] for row in table)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _asked(row: Row, folder: Path) -> Asked:
    """A row's question. Raises KeyError and the like if it is of no known form."""
    if "problem" in row:
        right = _right("math", row.get("answer") or final(row["solution"]))
        return "math", "", row["problem"], right
    if "####" in str(row.get("answer")):
        answer = row["answer"].rpartition("####")[2].strip().replace(",", "")
        return "gsm8k", "", row["question"], _right("number", answer)
    return _wtq(row, folder) if "context" in row else _finqa(row)


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    if ".tsv" not in path.name:
        yield from placed_rows(path)
        return
    lines = (line.split("\t") for line in read_lines(path))
    names = next(lines, [])
    for n, line in enumerate(lines, 2):
        yield f"{path}:{n}", dict(zip(names, line, strict=False))


def problems(path: Path, settings: ProblemSettings, seed: int) -> tuple[list[Prompt], Counter[str]]:
    """The rows' questions as prompts with their truth, and counts {in, out, and why dropped}.

    A table's path is taken from the folder of `path`. Raises UserError at a row of no known form.
    """
    made: list[Prompt] = []
    counts: Counter[str] = Counter()
    for where, row in _rows(path):
        if counts["in"] == settings.most:
            break
        counts["in"] += 1
        try:
            asked = _asked(row, path.parent)
            fits = len(asked[1]) <= settings.characters
            counts["out" if fits else "dropped: too long"] += 1
            made += [_prompt(asked, seed)] if fits else []
        except (ValueError, ArithmeticError):
            counts["dropped: program gives nothing"] += 1
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise UserError(f"{where}: of no known form (docs/synth.md): {error!r}") from None
    return made, counts


def _prompt(asked: Asked, seed: int) -> Prompt:
    family, document, question, right = asked
    joins = variants("problems_join")
    join = joins[seed_from(seed, document, question) % len(joins)]
    text = join.text.format(document=document, question=question) if document else question
    parents = (record_id(document),) if document else ()
    return Prompt(
        id=record_id(family, text),
        conversation=Conversation.of(text),
        task=family,
        checks=(right,),
        lineage=Lineage(source=family, answer_by="human", seed=seed, parents=parents),
    )


async def solved(maker: Maker, prompts: Sequence[Prompt], tries: int) -> list[Dialogue]:
    """The first right answer to each prompt, of at most `tries`; the others are dropped."""
    wording = template("problems_answer")

    async def step(prompt: Prompt, ask: Completer) -> list[Dialogue]:
        question = wording.fill(prompt=prompt.conversation.last)
        for attempt in range(tries):
            said, sampling = await maker.say(ask, question, "problems", prompt.id, attempt)
            if await truth.is_right(prompt, said):
                parents = (prompt.id, *prompt.lineage.parents)
                more: dict[str, Any] = {"answer_by": "model", "filters": ("right",)}
                lineage = maker.lineage("problems", wording, sampling, parents, **more)
                talk, name = prompt.conversation.answered(said), record_id("solved", prompt.id)
                return [Dialogue(id=name, conversation=talk, task=prompt.task, lineage=lineage)]
        raise Dropped("no right answer")

    return await maker.run("problems", step, prompts)
