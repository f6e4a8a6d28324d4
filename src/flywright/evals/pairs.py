"""A reward model on pairs: how often the better answer gets more, and how often the longer is it.

results = await pair_accuracy(scorer, comparisons)      # {"pair_accuracy": {...}, ...}
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from flywright.ask import Scorer, gather
from flywright.judge.reward import reward_of
from flywright.progress import Tick, silent
from flywright.records import Comparison, Lineage, Rating
from flywright.stats import bootstrap_mean, paired_difference

CONCURRENT = 256


def length_only(pair: Comparison) -> float:
    """What "the longer answer is better" scores: 1, 0, or a half where both are as long."""
    difference = len(pair.chosen) - len(pair.rejected)
    return 0.5 if difference == 0 else float(difference > 0)


async def rewards(
    scorer: Scorer, pairs: Sequence[Comparison], tick: Tick = silent
) -> list[tuple[float, float]]:
    """(reward of chosen, reward of rejected) of each pair, in order."""

    async def one(pair: Comparison) -> tuple[float, float]:
        chosen = await reward_of(scorer, pair.conversation, pair.chosen)
        return chosen, await reward_of(scorer, pair.conversation, pair.rejected)

    return await gather(one, pairs, CONCURRENT, tick, "pairs")


async def pair_accuracy(
    scorer: Scorer, pairs: Sequence[Comparison], tick: Tick = silent
) -> dict[str, Any]:
    """Share of pairs with reward(chosen) > reward(rejected); a tie is wrong (SPEC 5.5).

    Returns {"pair_accuracy", "length_only", "gain": {mean, low, high, n}, "by_kind": {task: both}};
    "gain" is the paired difference of the first two. Raises ValueError when there are no pairs.
    """
    scored = await rewards(scorer, pairs, tick)
    right = [float(chosen > rejected) for chosen, rejected in scored]
    longer = [length_only(pair) for pair in pairs]

    def both(rows: Sequence[int]) -> dict[str, Any]:
        values = {"pair_accuracy": right, "length_only": longer}
        return {n: bootstrap_mean([v[row] for row in rows]).as_dict() for n, v in values.items()}

    kinds: dict[str, list[int]] = defaultdict(list)
    for row, pair in enumerate(pairs):
        kinds[pair.task].append(row)
    return {
        **both(range(len(pairs))),
        "gain": paired_difference(right, longer).as_dict(),
        "by_kind": {kind: both(kinds[kind]) for kind in sorted(kinds)},
    }


def rated_pairs(ratings: Sequence[Rating], least_gap: float = 1.0) -> list[Comparison]:
    """Pairs from ratings whose rows 2k and 2k + 1 share a prompt, where helpfulness is clear.

    Gold helpfulness (lineage.scores) decides where it is known, else the rated one; a pair counts
    if the gap is `least_gap` or more. `task` is the defect of the worse answer, if stated.
    """
    pairs = []
    for first, second in zip(ratings[::2], ratings[1::2], strict=False):
        better, worse = sorted((first, second), key=_gold, reverse=True)
        if _gold(better) - _gold(worse) >= least_gap:
            defects = [name for name in worse.lineage.filters if name.startswith("defect:")]
            pairs.append(
                Comparison(
                    id=worse.id,
                    conversation=better.conversation.without_answer(),
                    chosen=better.conversation.last,
                    rejected=worse.conversation.last,
                    task=defects[0].removeprefix("defect:") if defects else "",
                    lineage=Lineage(source="ratings", parents=(better.id, worse.id)),
                )
            )
    return pairs


def _gold(rating: Rating) -> float:
    return rating.lineage.scores.get("gold_helpfulness", rating.helpfulness or 0.0)
