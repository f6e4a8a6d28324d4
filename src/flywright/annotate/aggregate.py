"""One rating from several annotators (SPEC 5.6).

At least three annotators; two more where their helpfulness is more than 2 apart; of five the three
that agree most are kept; a prompt stays only if, for each of its answers, the kept ones are within
2 of each other. The label is the mean of the kept, rounded.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from flywright.annotate.labels import Item, PairLabel, RatingLabel
from flywright.records import ATTRIBUTES, Comparison, Rating, Verdict
from flywright.stats import cohen_kappa

FEW, MANY, KEPT = 3, 5, 3
MAX_SPREAD = 2
FLAGS_TO_DROP = 2


def spread(values: Iterable[int]) -> int:
    """Highest minus lowest."""
    values = list(values)
    return max(values) - min(values)


def wanted_labels(helpfulness: Sequence[int]) -> int:
    """How many annotators an answer needs, given the helpfulness values so far."""
    disagree = len(helpfulness) >= FEW and spread(helpfulness) > MAX_SPREAD
    return MANY if disagree else FEW


def is_open(helpfulness: Sequence[int], flags: int) -> bool:
    """True while an item needs more labels; two flags close it."""
    return flags < FLAGS_TO_DROP and len(helpfulness) < wanted_labels(helpfulness)


Signed = tuple[str, RatingLabel]


def most_agreeing(labels: Sequence[Signed]) -> list[Signed]:
    """The three labels closest to each other in all five attributes, then in helpfulness.

    By helpfulness alone, three of five values on 0-4 always lie within 2 of each other, and the
    last filter could never act.
    """

    def distance(chosen: Sequence[Signed]) -> tuple[int, int]:
        values = [label.values for _, label in chosen]
        pairs = list(combinations(values, 2))
        everywhere = sum((x - y) ** 2 for a, b in pairs for x, y in zip(a, b, strict=True))
        return everywhere, sum((a[0] - b[0]) ** 2 for a, b in pairs)

    ordered = sorted(labels, key=lambda signed: signed[0])  # so that ties do not hang on arrival
    return list(min(combinations(ordered, KEPT), key=distance))


@dataclass
class Ratings:
    """Aggregated ratings, what was dropped and why, and the labels before and after."""

    kept: list[Rating] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    all_labels: list[list[RatingLabel]] = field(default_factory=list)
    kept_labels: list[list[RatingLabel]] = field(default_factory=list)


def aggregate_ratings(rows: Sequence[tuple[Item, list[Signed]]]) -> Ratings:
    """Ratings of all items; a group with one answer that fails is dropped with all its answers."""
    result = Ratings()
    reasons: dict[str, str] = {}
    chosen: list[tuple[Item, list[Signed]]] = []
    for item, signed in rows:
        usable = [(name, label) for name, label in signed if not label.skip]
        reason = _fault(usable, flags=len(signed) - len(usable))
        if reason:
            reasons.setdefault(item.group, reason)
        else:
            chosen.append((item, most_agreeing(usable)))
        result.all_labels.append([label for _, label in usable])
    for item, kept in chosen:
        if spread(label.values[0] for _, label in kept) > MAX_SPREAD:
            reasons.setdefault(item.group, "annotators disagree")
    for item, kept in chosen:
        if item.group not in reasons:
            result.kept.append(_rating(item, kept))
            result.kept_labels.append([label for _, label in kept])
    result.dropped = Counter(reasons[item.group] for item, _ in rows if item.group in reasons)
    return result


def _fault(usable: Sequence[Signed], flags: int) -> str:
    if flags >= FLAGS_TO_DROP:
        return "flagged"
    helpfulness = [label.values[0] for _, label in usable]
    return "too few labels" if len(usable) < wanted_labels(helpfulness) else ""


def _rating(item: Item, kept: Sequence[Signed]) -> Rating:
    columns = zip(*(label.values for _, label in kept), strict=True)
    means = {name: sum(c) / len(c) for name, c in zip(ATTRIBUTES, columns, strict=True)}
    verdicts = tuple(
        Verdict(judge=name, score=label.values[0], detail=",".join(map(str, label.values)))
        for name, label in kept
    )
    return Rating(
        id=item.id,
        conversation=item.conversation,
        lineage=item.lineage.model_copy(update={"verdicts": verdicts}),
        **{name: float(round(mean)) for name, mean in means.items()},
    )


def agreement(labels: Sequence[Sequence[RatingLabel]]) -> dict[str, float]:
    """Quadratic-weighted kappa of each attribute over all pairs of annotators, in both orders."""
    pairs = [
        pair for group in labels for a, b in combinations(group, 2) for pair in ((a, b), (b, a))
    ]
    if not pairs:
        return {}
    return {
        name: cohen_kappa([a.values[i] for a, _ in pairs], [b.values[i] for _, b in pairs])
        for i, name in enumerate(ATTRIBUTES)
    }


def preferred(item: Item, signed: Sequence[tuple[str, PairLabel]]) -> Comparison | None:
    """The pair as the majority of at least three judged it; None for a tie or too few."""
    votes = [(name, label.preference) for name, label in signed if not label.skip]
    total = sum(vote for _, vote in votes)
    if len(votes) < FEW or total == 0:
        return None
    verdicts = tuple(Verdict(judge=name, preference=vote) for name, vote in votes)
    chosen, rejected = (item.first, item.second) if total > 0 else (item.second, item.first)
    return Comparison(
        id=item.id,
        conversation=item.conversation,
        chosen=chosen,
        rejected=rejected,
        judge="human",
        task=item.task,
        lineage=item.lineage.model_copy(update={"verdicts": verdicts}),
    )
