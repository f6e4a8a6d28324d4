"""Arena-Hard: a judge compares each answer with a baseline's, in both orders (SPEC 10.4).

`>>` counts as three battles, a tie as half a win. Every battle is against the one baseline, so the
Bradley-Terry win rate is the weighted share of won battles; its interval draws questions anew. A
game without one clear label counts in `unreadable` and in no battle.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from flywright.ask import Sampling
from flywright.data.rows import Row, read_lines
from flywright.errors import UserError
from flywright.evals.datafiles import NotThere, find, problem
from flywright.evals.items import Item, Metrics, Task, Who, item_of
from flywright.evals.judging import Asking, interval, judged, ours
from flywright.evals.responses import JUDGED
from flywright.evals.tables import answers_in, names_in, need, placed
from flywright.records import Check, Prompt

NAME = "arena_hard"
FOLDERS = {NAME: "v0.1", f"{NAME}_v2": "v2.0"}
BASELINES = {
    "arena-hard-v0.1": "gpt-4-0314",
    "hard_prompt": "o3-mini-2025-01-31",
    "creative_writing": "gemini-2.0-flash-001",
}
LABELS = {"A>>B": 3, "A>B": 1, "A=B": 0, "B>A": -1, "B>>A": -3, "A<<B": -3, "A<B": -1, "B=A": 0}
LABELS |= {"B<A": 1, "B<<A": 3}
VERDICT = Sampling(max_tokens=4096)


def load(task: str, path: Path) -> Iterator[Prompt]:
    """The questions with the baseline's answers and the judge's prompt.

    A baseline's answers that are not there are missed only where the judge has to be asked.
    """
    version = FOLDERS[task]
    source = find(path, f"arena_hard/{version}", "question.jsonl")
    folder, asking, known = source.parent, _asking(source.parent), {}
    for where, row in placed(source):
        category = row.get("category", "")
        baseline = BASELINES.get(category, BASELINES["arena-hard-v0.1"])
        if baseline not in known:
            known[baseline] = _answers(folder, baseline)
        name, text = need(where, row, "uid", "question_id"), row.get("prompt")
        text = text or need(where, row, "turns")[0]["content"]
        args = {
            "baseline": baseline,
            "answer": known[baseline].get(str(name).lower()),
            "asking": dict(asking),
        }
        prompt = problem(task, f"{task}/{name}", text, Check(kind=NAME, args=args))
        yield prompt.model_copy(update={"split": category})


def _answers(folder: Path, model: str) -> dict[str, str]:
    with suppress(NotThere):
        rows = placed(find(folder, "model_answer", f"{model}.jsonl"))
        return {name: answers_in(row)[0] for _, row in rows for name in names_in(row)}
    return {}


def _asking(folder: Path) -> Asking:
    """The judge's prompt: the benchmark's judge_config.yaml if it is there, else ours."""
    with suppress(NotThere):
        source = find(folder, "config", "judge_config.yaml")
        lines = [line.partition(":") for line in read_lines(source)]
        given = {key.strip(): value.strip() for key, _, value in lines}
        try:
            template = json.loads(given["prompt_template"])
            text = template if isinstance(template, str) else template[0]
            return {"system": json.loads(given["system_prompt"]), "template": text}
        except (KeyError, ValueError, IndexError):
            raise UserError(f"{source}: no quoted system_prompt and prompt_template") from None
    return ours()["five-labels"]


def parse_label(text: str, last: bool) -> str | None:
    """The verdict. v0.1: the only label there is; v2: the last of those in double brackets."""
    found = re.findall(r"\[\[([AB<>=]+)\]\]", text.upper() if last else text)
    if last:
        found = found or re.findall(r"\[([AB<>=]+)\]", text.upper())
        return found[-1] if found else None
    return found[0] if len(set(found)) == 1 else None


async def grade(prompt: Prompt, answer: str, who: Who) -> list[Item]:
    """A battle each game: +3..-3 for us. Game 1 has the baseline as A, game 2 has us."""
    args = prompt.checks[0].args
    if JUDGED in args:
        games = [game for row in args[JUDGED] for game in _games(row)]
        said = [str(game.get("judgment", "")) for game in games]
        labels = [game.get("score", parse_label(said[n], True)) for n, game in enumerate(games)]
    else:
        said = [await _asked(prompt, answer, who, swapped) for swapped in (False, True)]
        last = prompt.task != NAME
        labels = [parse_label(text, last) for text in said]
    items, views = [], []
    for game, label in enumerate(labels):
        own = {"id": f"{prompt.id}#{game + 1}", "truth": label or "", "detail": said[game]}
        clear = label in LABELS
        items.append(item_of(prompt, "unreadable", float(not clear), "", id=own["id"]))
        if clear:
            views.append(LABELS[label] * (1 if game % 2 else -1))
            items.append(item_of(prompt, "battle", views[-1], answer, **own))
            items.append(item_of(prompt, "tie", float(views[-1] == 0), "", id=own["id"]))
    if len(views) == 2:
        turned = np.sign(views[0]) != np.sign(views[1])
        items.append(item_of(prompt, "order_decides", float(turned), ""))
    return items


def _games(row: Row) -> list[Row]:
    """Arena-Hard's games, or two replies by the order in which the answers stood (NeMo-Skills)."""
    sides = ("judgement-base-gen", "judgement-gen-base")
    return row.get("games") or [{"judgment": row[side]} for side in sides if side in row]


async def _asked(prompt: Prompt, answer: str, who: Who, swapped: bool) -> str:
    args = prompt.checks[0].args
    if args["answer"] is None:
        raise UserError(
            f"{prompt.id}: not answered in model_answer/{args['baseline']}.jsonl (the baseline)"
        )
    first, second = (answer, args["answer"]) if swapped else (args["answer"], answer)
    text = prompt.conversation.last
    fields = {"question_1": text, "QUESTION": text, "answer_1": first, "answer_2": second}
    fields |= {"ANSWER_A": first, "ANSWER_B": second}
    return await judged(who, args["asking"], VERDICT, **fields)


def summary(items: Sequence[Item]) -> Metrics:
    """`win_rate` in per cent, over all and by category."""
    battles: dict[str, dict[str, list[float]]] = {"win_rate": {}}
    for item in items:
        if item.metric == "battle":
            for name in ("win_rate", f"win_rate ({item.split})"):
                question = item.id.partition("#")[0]
                battles.setdefault(name, {}).setdefault(question, []).append(item.score)
    return {name: win_rate(list(of.values())) for name, of in battles.items() if of}


def win_rate(questions: Sequence[Sequence[float]]) -> dict[str, float]:
    """The weighted share of won battles in per cent, with its interval over questions."""
    fought = [sum(abs(battle) or 1 for battle in one) for one in questions]
    won = [
        sum(battle if battle > 0 else 0.5 * (battle == 0) for battle in one) for one in questions
    ]
    return interval(lambda w, f: 100 * w.sum() / f.sum(), won, fought)


ARENA_HARD = tuple(
    Task(
        name,
        partial(load, name),
        grade=grade,
        judged=True,
        max_tokens=4096,
        summary=summary,
        protocol=f"Arena-Hard {version}: win rate against the baseline, both orders, >> counts 3",
    )
    for name, version in FOLDERS.items()
)
