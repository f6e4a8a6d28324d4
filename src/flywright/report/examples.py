"""The same prompt through the stages: a few items chosen by rule, not by taste.

For each task the first item that was wrong at first and right at last, one item that a later stage
lost, then items on which nothing changed.
"""

from dataclasses import dataclass

from flywright.report.artifacts import Evaluation, Item, Run, label
from flywright.report.made import records

MOST = 6  # examples on the page
LONGEST = 600  # characters of an answer that are shown


@dataclass(frozen=True)
class Answer:
    """One stage's answer; `verdict` is "right", "wrong" or a score."""

    stage: str
    text: str
    verdict: str


@dataclass(frozen=True)
class Example:
    """A held-out prompt and what each stage answered."""

    task: str
    prompt: str
    truth: str
    fell: bool
    answers: list[Answer]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def _verdict(item: Item) -> str:
    if item.metric != "reward" and item.score in (0.0, 1.0):
        return "right" if item.score else "wrong"
    return f"{item.score:.2f}"


def _prompts(run: Run) -> dict[str, str]:
    """Texts of the run's own Prompt records by id, for items that do not repeat their prompt."""
    texts = {}
    for step in run.steps:
        for kind, record in records(step):
            if kind == "prompt":
                texts[record.get("id")] = record["conversation"]["messages"][-1]["content"]
    return texts


def _through(rows: list[Evaluation]) -> dict[tuple[str, str], list[Item]]:
    """(metric, item id) -> the item in every stage, for items that all stages answered."""
    tables = [
        {(item.metric, item.id): item for item in row.items if item.metric != "reward"}
        for row in rows
    ]
    if not tables:
        return {}
    common = set.intersection(*(set(table) for table in tables))
    return {key: [table[key] for table in tables] for key in tables[0] if key in common}


def _chosen(through: dict[tuple[str, str], list[Item]], ours: int) -> list[list[Item]]:
    """Rises of different tasks first, then falls, then any item, up to MOST."""
    rises: dict[str, list[Item]] = {}
    falls: dict[str, list[Item]] = {}
    plain: dict[str, list[Item]] = {}
    for items in through.values():
        first, last = items[ours].score, items[-1].score
        group = rises if last > first else falls if last < max(i.score for i in items) else plain
        group.setdefault(items[-1].task, items)
    picked = list(rises.values())[: MOST - 1] + list(falls.values())[:1]
    for items in [*list(rises.values())[MOST - 1 :], *list(falls.values())[1:], *plain.values()]:
        if len(picked) < MOST:
            picked.append(items)
    return picked


def examples(run: Run) -> list[Example]:
    """Up to six held-out prompts of the last turn with every stage's answer."""
    turn = max((row.turn for row in run.evaluations), default=0)
    rows = [row for row in run.evaluations if row.turn == turn and row.items]
    ours = next((index for index, row in enumerate(rows) if row.ours), 0)
    through = _through(rows)
    texts = {} if all(items[0].prompt for items in through.values()) else _prompts(run)
    found = []
    for items in _chosen(through, ours):
        pairs = zip(rows, items, strict=True)
        answers = [Answer(label(r.stage), _cut(i.answer), _verdict(i)) for r, i in pairs]
        last = items[-1]
        prompt = last.prompt or texts.get(last.id.partition("#")[0], "") or f"item {last.id}"
        fell = last.score < max(item.score for item in items)
        found.append(Example(label(last.task), _cut(prompt), _cut(last.truth), fell, answers))
    return found
