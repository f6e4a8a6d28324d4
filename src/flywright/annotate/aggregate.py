"""One rating from several annotators (SPEC 5.6).

At least three annotators; two more where their helpfulness is more than 2 apart; of five the three
that agree most are kept; a prompt stays only if, for each of its answers, the kept ones are within
2 of each other. The label is the mean of the kept, rounded.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from flywright.annotate.labels import Label, PairLabel, RatingLabel, group_of
from flywright.records import ATTRIBUTES, Comparison, Dialogue, Rating, Verdict

FEW, MANY, KEPT = 3, 5, 3
MAX_SPREAD, FLAGS_TO_DROP = 2, 2
Signed = tuple[str, RatingLabel]  # who gave it, and the label


def apart(helpfulness: Sequence[int]) -> bool:
    """True if the values lie more than 2 apart."""
    return max(helpfulness) - min(helpfulness) > MAX_SPREAD


def wanted_labels(helpfulness: Sequence[int]) -> int:
    """How many annotators an answer needs, given the helpfulness values so far."""
    return MANY if len(helpfulness) >= FEW and apart(helpfulness) else FEW


def is_open(helpfulness: Sequence[int | None]) -> bool:
    """True while an item needs more labels; None stands for a flag, and two flags close it."""
    values = [value for value in helpfulness if value is not None]
    flags = len(helpfulness) - len(values)
    return flags < FLAGS_TO_DROP and len(values) < wanted_labels(values)


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


def aggregate_ratings(
    rows: Sequence[tuple[Dialogue, list[tuple[str, Label]]]],
) -> tuple[list[Rating], Counter[str]]:
    """Ratings of all answers, and how many answers were dropped by reason.

    A prompt with one answer that fails is dropped with all its answers.
    """
    reasons: dict[str, str] = {}
    kept: list[tuple[Dialogue, list[Signed]]] = []
    for dialogue, signed in rows:
        usable = [(name, label) for name, label in signed if isinstance(label, RatingLabel)]
        if fault := _fault(usable, flags=len(signed) - len(usable)):
            reasons.setdefault(group_of(dialogue), fault)
        else:
            kept.append((dialogue, most_agreeing(usable)))
    ratings = [_rating(*row) for row in kept if group_of(row[0]) not in reasons]
    groups = (group_of(dialogue) for dialogue, _ in rows)
    return ratings, Counter(reasons[group] for group in groups if group in reasons)


def _fault(usable: Sequence[Signed], flags: int) -> str:
    """Why an answer gets no rating, or an empty string."""
    if flags >= FLAGS_TO_DROP:
        return "flagged"
    if len(usable) < wanted_labels([label.helpfulness for _, label in usable]):
        return "too few labels"
    kept = most_agreeing(usable)
    return "annotators disagree" if apart([label.helpfulness for _, label in kept]) else ""


def _rating(dialogue: Dialogue, kept: Sequence[Signed]) -> Rating:
    columns = zip(*(label.values for _, label in kept), strict=True)
    means = [float(round(sum(column) / len(column))) for column in columns]
    verdicts = tuple(
        Verdict(judge=name, score=label.helpfulness, detail=label.model_dump_json())
        for name, label in kept
    )
    return Rating(
        id=dialogue.id,
        conversation=dialogue.conversation,
        lineage=dialogue.lineage.model_copy(update={"verdicts": verdicts}),
        **dict(zip(ATTRIBUTES, means, strict=True)),
    )


def preferred(pair: Comparison, signed: Sequence[tuple[str, Label]]) -> Comparison | None:
    """The pair as the majority of at least three judged it; None for a tie or too few."""
    votes = [(name, label.preference) for name, label in signed if isinstance(label, PairLabel)]
    total = sum(vote for _, vote in votes)
    if len(votes) < FEW or total == 0:
        return None
    verdicts = tuple(Verdict(judge=name, preference=vote) for name, vote in votes)
    better, worse = (pair.chosen, pair.lineage.model), (pair.rejected, pair.rejected_model)
    if total < 0:
        better, worse = worse, better
    return Comparison(
        id=pair.id,
        conversation=pair.conversation,
        chosen=better[0],
        rejected=worse[0],
        judge="human",
        task=pair.task,
        rejected_model=worse[1],
        lineage=pair.lineage.model_copy(update={"verdicts": verdicts, "model": better[1]}),
    )
