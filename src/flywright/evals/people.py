"""Human evaluation: what people said of two answers side by side (SPEC 10.7).

Read are our annotation file (`flywright annotate`), or rows with `annotator`, `preference` (1 ours,
0 a tie, -1 the other), and if given `category` and how long both seemed: `length`, `other_length`.
"Ours" is the model that wrote the first item's chosen answer.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from flywright.annotate.labels import PairLabel
from flywright.annotate.store import everything
from flywright.errors import UserError
from flywright.evals.datafiles import find, problem
from flywright.evals.items import Item, Metrics, Task, Who, item_of, nobody
from flywright.evals.judging import interval
from flywright.evals.tables import need, placed
from flywright.judge.agreement import kappa
from flywright.records import Check, Comparison, Prompt
from flywright.stats import clustered_mean

NAME = "human"
OUTCOMES = {1: "win", 0: "tie", -1: "loss"}
LENGTHS = ("too short", "right", "too long")
Vote = dict[str, Any]


def load(path: Path) -> Iterator[Prompt]:
    """A prompt for each compared pair, with everybody's votes."""
    source = find(path, NAME, "labels.db", "side_by_side.jsonl", "side_by_side.csv")
    votes = _rows(source) if _is_text(source) else _labels(source)
    if not votes:
        raise UserError(f"{source}: nobody compared two answers")
    for name, (text, category, given) in votes.items():
        prompt = problem(NAME, f"{NAME}/{name}", text, Check(kind=NAME, args={"votes": given}))
        yield prompt.model_copy(update={"split": category})


def _is_text(path: Path) -> bool:
    return path.open("rb").read(6) != b"SQLite"


def _labels(path: Path) -> dict[str, tuple[str, str, list[Vote]]]:
    found, ours = {}, None
    for item, labels in everything(path):
        if not isinstance(item, Comparison):
            continue
        ours = item.lineage.model if ours is None else ours
        turned = bool(ours) and item.rejected_model == ours
        votes = [_vote(who, label, turned) for who, label in labels if isinstance(label, PairLabel)]
        if votes:
            found[item.id] = (item.conversation.last, item.task, votes)
    return found


def _vote(who: str, label: PairLabel, turned: bool) -> Vote:
    sides = [label.chosen.length, label.rejected.length]
    preference = -label.preference if turned else label.preference
    first, second = sides[::-1] if turned else sides
    return {"annotator": who, "preference": preference, "length": first, "other_length": second}


def _rows(path: Path) -> dict[str, tuple[str, str, list[Vote]]]:
    found: dict[str, tuple[str, str, list[Vote]]] = {}
    for where, row in placed(path):
        preference = str(need(where, row, "preference"))
        if preference not in ("1", "0", "-1"):
            raise UserError(f"{where}: preference {preference!r} is none of 1, 0, -1")
        lengths = {key: row[key] for key in ("length", "other_length") if row.get(key)}
        if not set(lengths.values()) <= set(LENGTHS):
            raise UserError(f"{where}: a perceived length is one of {', '.join(LENGTHS)}")
        vote = {
            "annotator": need(where, row, "annotator"),
            "preference": int(preference),
            **lengths,
        }
        name = str(need(where, row, "id", "question_id", "prompt"))
        found.setdefault(name, (row.get("prompt") or name, row.get("category", ""), []))[2].append(
            vote
        )
    return found


async def grade(prompt: Prompt, _answer: str, _who: Who) -> list[Item]:
    """Items of each vote: what it was, and how long the answers seemed."""
    items = []
    for vote in prompt.checks[0].args["votes"]:
        own = {"id": f"{prompt.id}#{vote['annotator']}"}
        mine = str(vote["preference"])
        items += [
            item_of(prompt, name, float(value == vote["preference"]), "", **own, truth=mine)
            for value, name in OUTCOMES.items()
        ]
        for side in ("length", "other_length"):
            items += [
                item_of(prompt, f"{side} {name}", float(vote[side] == name), "", **own)
                for name in LENGTHS
                if side in vote
            ]
    return items


def summary(items: Sequence[Item]) -> Metrics:
    """Every share, drawn anew by prompts as votes on one are not independent; and alpha."""
    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    units: dict[str, list[int]] = defaultdict(list)
    for item in items:
        prompt = item.id.rpartition("#")[0]
        for name in {item.metric, f"{item.metric} ({item.split})" if item.split else item.metric}:
            groups[name][prompt].append(item.score)
        if item.metric == OUTCOMES[1]:
            units[prompt].append(int(item.truth))
    found = {name: clustered_mean(list(of.values())).as_dict() for name, of in groups.items()}
    votes = [unit for unit in units.values() if len(unit) > 1]
    if votes:
        rows = np.empty(len(votes), dtype=object)
        rows[:] = votes
        count = {"n": sum(map(len, votes))}
        found["agreement_alpha"] = interval(alpha, rows) | count
        found["agreement_kappa"] = interval(_kappa, rows) | count
    return found


def _kappa(units: Sequence[Sequence[int]]) -> float:
    """Cohen's, over every two votes on a prompt in either order; nan where all are the same."""
    found = kappa([pair for unit in units for pair in permutations(unit, 2)])
    return float("nan") if found is None else found


def alpha(units: Sequence[Sequence[float]]) -> float:
    """Krippendorff's alpha (interval scale) of units of two votes and more; nan if all agree."""
    counts = Counter(value for unit in units for value in unit)
    n = sum(counts.values())
    seen = sum(
        sum((a - b) ** 2 for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units
    )
    by_chance = sum(counts[a] * counts[b] * (a - b) ** 2 for a, b in permutations(counts, 2))
    return 1 - seen * (n - 1) / by_chance if by_chance else float("nan")


HUMAN = Task(
    NAME,
    load,
    ask=nobody,
    grade=grade,
    summary=summary,
    protocol="Human evaluation: win, tie and loss over votes; intervals over prompts; alpha",
)
