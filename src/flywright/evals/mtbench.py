"""MT-Bench: 80 questions of two turns, each answer graded from 1 to 10 by a judge (SPEC 10.2).

Answers are greedy. The corrected references of gpt-4-0125-preview are taken where both sets are
there. FastChat's files are read: questions, references, judge prompts, answers (--responses) and
judgments (--judgments). A grade is the first [[n]], else the first [n]; an answer without one is
left out of the means and counted in `unreadable`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

from flywright.errors import UserError
from flywright.evals.datafiles import NotThere, find, problem
from flywright.evals.items import Item, Metrics, Task, Who, item_of
from flywright.evals.judging import Asking, judged, ours
from flywright.evals.responses import JUDGED
from flywright.evals.tables import answers_in, need, placed
from flywright.records import Check, Prompt
from flywright.stats import clustered_mean

NAME = "mt_bench"
REFERENCES = ("reference_answer/gpt-4-0125-preview.jsonl", "reference_answer/gpt-4.jsonl")
WITH_REFERENCE = ("math", "reasoning", "coding")
_GRADES = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))


def load(path: Path) -> Iterator[Prompt]:
    """The questions, each with its second turn, its references and the judge's prompts."""
    source = find(path, NAME, "question.jsonl")
    asking, references = _asking(path), _references(path)
    for where, row in placed(source):
        name, category = need(where, row, "question_id"), row.get("category", "")
        turns = need(where, row, "turns")
        math = "-math" if category in WITH_REFERENCE else ""
        args: dict[str, Any] = {"turns": turns, "references": references.get(name, [])}
        if math and len(args["references"]) < len(turns):
            raise UserError(
                f"{where}: question {name} is of {category}, and has no reference answer"
            )
        args["asking"] = [dict(asking[f"single{math}{late}"]) for late in ("", "-multi-turn")]
        prompt = problem(NAME, f"{NAME}/{name}", turns[0], Check(kind=NAME, args=args))
        yield prompt.model_copy(update={"split": category})


def _asking(path: Path) -> Mapping[str, Asking]:
    """The judge's prompts: FastChat's if its file is there, else ours."""
    with suppress(NotThere):
        rows = list(placed(find(path, NAME, "judge_prompts.jsonl")))
        return {
            need(where, row, "name").replace("-v1", ""): {
                "system": need(where, row, "system_prompt"),
                "template": need(where, row, "prompt_template"),
            }
            for where, row in rows
        }
    return ours()


def _references(path: Path) -> dict[Any, list[str]]:
    with suppress(NotThere):
        rows = placed(find(path, NAME, *REFERENCES))
        return {need(w, row, "question_id"): _answers(answers_in(row)[0]) for w, row in rows}
    return {}


async def ask(prompt: Prompt, who: Who) -> str:
    """Both answers, the second one after the first, as a JSON list."""
    conversation, answers = prompt.conversation, []
    for turn in prompt.checks[0].args["turns"]:
        if answers:
            conversation = conversation.answered(answers[-1]).then("user", turn)
        answers.append((await who.asked.complete(conversation, who.sampling)).text)
    return json.dumps(answers)


def parse_grade(text: str) -> float | None:
    """The first number in double brackets, else in single ones, as FastChat reads it."""
    found = next(filter(None, (pattern.search(text) for pattern in _GRADES)), None)
    return float(found[1]) if found else None


async def grade(prompt: Prompt, answer: str, who: Who) -> list[Item]:
    """The grade of each turn: the mean of the stored ones, else the one that is asked for."""
    args, items = prompt.checks[0].args, []
    answers = _answers(answer)
    if JUDGED not in args and answer and len(answers) < len(args["turns"]):
        raise UserError(f"{prompt.id}: {len(answers)} of {len(args['turns'])} answers are there")
    fields = {f"ref_answer_{n}": text for n, text in enumerate(args["references"], start=1)}
    for turn, (question, text) in enumerate(zip_longest(args["turns"], answers, fillvalue=""), 1):
        fields |= {f"question_{turn}": question, f"answer_{turn}": text}
        if JUDGED in args:
            rows = [row for row in args[JUDGED] if row.get("turn", 1) == turn]
            said = [str(row.get("judgment", "")) for row in rows]
            grades = [_stored(prompt.id, row) for row in rows]
        else:
            now = {"question": question, "answer": text}
            said = [await judged(who, args["asking"][turn - 1], **fields, **now)]
            grades = [parse_grade(words) for words in said]
        kept = [one for one in grades if one is not None]
        own = {"id": f"{prompt.id}#{turn}", "detail": "\n\n".join(said)}
        items.append(item_of(prompt, "unreadable", float(None in grades or not grades), "", **own))
        if kept:
            items.append(item_of(prompt, f"turn_{turn}", sum(kept) / len(kept), text, **own))
        if len(kept) > 1:
            items.append(item_of(prompt, "judge_spread", max(kept) - min(kept), "", id=own["id"]))
    return items


def _answers(answer: str) -> list[str]:
    with suppress(ValueError, RecursionError):
        turns = json.loads(answer)
        return [str(turn) for turn in turns] if isinstance(turns, list) else [answer]
    return [answer]


def _stored(name: str, row: Mapping[str, Any]) -> float | None:
    """FastChat's number (-1 is one that it could not read), else what its judge's words say."""
    if "g1_winner" in row:
        raise UserError(f"{name}: a judgment of a pair; give single answers' (MODEL_single.jsonl)")
    if "score" not in row:
        return parse_grade(str(row.get("judgment", "")))
    return float(row["score"]) if row["score"] >= 0 else None


def summary(items: Sequence[Item]) -> Metrics:
    """`score`: the mean of all grades, pooled over turns; and of each category."""
    groups: dict[str, dict[str, list[float]]] = {}
    for item in items:
        if item.metric.startswith("turn_"):
            for name in ("score", f"score ({item.split})"):
                question = item.id.partition("#")[0]
                groups.setdefault(name, {}).setdefault(question, []).append(item.score)
    return {name: clustered_mean(list(of.values())).as_dict() for name, of in groups.items()}


MT_BENCH = Task(
    NAME,
    load,
    ask=ask,
    grade=grade,
    judged=True,
    max_tokens=1024,
    summary=summary,
    protocol="MT-Bench: greedy, 2 turns graded singly 1-10, corrected references, pooled mean",
)
