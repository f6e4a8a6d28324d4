"""What the judges of comparisons did: who agrees with whom, and whether length or place decides.

    report = judged(pairs, people)       # numbers; table(report) is the same to read

Votes stand in lineage.verdicts, 1 for the chosen answer. As the chosen answer stands first by
nature, votes are turned to an order that hangs on the texts alone before agreement is counted.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from flywright.files import digest
from flywright.records import Comparison

_PLACES = {"A/A": "first twice", "B/B": "second twice", "C/C": "tie", "A/B": "kept", "B/A": "kept"}


def kappa(votes: Sequence[tuple[int, int]]) -> float | None:
    """Cohen's kappa of two judges' votes; None where chance alone makes them agree."""
    count = len(votes)
    same = sum(one == two for one, two in votes) / count
    each = [Counter(side) for side in zip(*votes, strict=True)]
    chance = sum(each[0][label] * each[1][label] for label in each[0]) / count**2
    return None if chance == 1 else (same - chance) / (1 - chance)


def judged(pairs: Sequence[Comparison], people: Sequence[Comparison] = ()) -> dict[str, Any]:
    """{"pairs", "decided_by", "length", "position", "agreement"}.

    people: the same pairs (by id) as people judged them. length: by judge, the share of its votes
    that went to the longer answer. position: by LLM judge, how its labels in the two orders went;
    pairs that it decided itself are left out, since it kept to its choice in them all. agreement:
    of each two judges, how often they agree, and kappa.
    """
    human = {pair.id: pair.chosen for pair in people}
    agreeing: dict[str, list[tuple[int, int]]] = {}
    longer: dict[str, list[bool]] = {}
    places: dict[str, Counter[str]] = {}
    for pair in pairs:
        turn = 1 if digest(pair.chosen) < digest(pair.rejected) else -1
        votes = {each.judge: each.preference * turn for each in pair.lineage.verdicts}
        if pair.id in human:
            votes["people"] = turn if human[pair.id] == pair.chosen else -turn
        for one, two in combinations(sorted(votes), 2):
            agreeing.setdefault(f"{one} ~ {two}", []).append((votes[one], votes[two]))
        gap = (len(pair.chosen) - len(pair.rejected)) * turn
        for judge, vote in votes.items():
            if vote * gap:
                longer.setdefault(judge, []).append(vote * gap > 0)
        for each in pair.lineage.verdicts if pair.judge != "llm" else ():
            if "/" in each.detail and each.judge.startswith("llm"):
                place = _PLACES.get(each.detail, "one order undecided")
                places.setdefault(each.judge, Counter())[place] += 1
    characters = {
        side: _mean([len(getattr(p, side)) for p in pairs]) for side in ("chosen", "rejected")
    }
    shares = {judge: {"share": _mean(found), "n": len(found)} for judge, found in longer.items()}
    return {
        "pairs": len(pairs),
        "decided_by": dict(Counter(pair.judge for pair in pairs)),
        "length": {"mean_characters": characters, "longer_preferred": shares},
        "position": {judge: dict(found) for judge, found in places.items()},
        "agreement": {
            both: {"n": len(v), "agree": _mean([x == y for x, y in v]), "kappa": kappa(v)}
            for both, v in sorted(agreeing.items())
        },
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def table(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""

    def shown(value: Any) -> str:
        return f"{value:.3f}" if isinstance(value, float) else "-" if value is None else str(value)

    def rows(title: str, of: Mapping[str, Mapping[str, Any]]) -> list[str]:
        names = list(dict.fromkeys(name for found in of.values() for name in found))
        cells = [[key, *(shown(row.get(name, 0)) for name in names)] for key, row in of.items()]
        lines = [[title, *names], ["---"] * (len(names) + 1), *cells]
        return ["", *(f"| {' | '.join(line)} |" for line in lines)]

    tables = {
        "pairs": {"all": {"all": report["pairs"], **report["decided_by"]}},
        "mean characters": {"": report["length"]["mean_characters"]},
        "votes for the longer answer": report["length"]["longer_preferred"],
        "labels in both orders": report["position"],
        "judges": report["agreement"],
    }
    return "\n".join(line for title, of in tables.items() for line in rows(title, of)) + "\n"
