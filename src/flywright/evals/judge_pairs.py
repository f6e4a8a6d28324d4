"""An LLM judge on pairs whose better answer is known: how often it is right in both orders."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from flywright.ask import Completer, gather
from flywright.ask.protocol import TooLong
from flywright.judge.pairwise import likelier, outcome, prefer
from flywright.progress import Tick, silent
from flywright.records import Comparison, Verdict
from flywright.stats import bootstrap_mean

CONCURRENT = 128
BY_LIKELIHOOD = " (by likelihood)"


async def verdicts(
    judge: Completer, pairs: Sequence[Comparison], tick: Tick = silent
) -> list[Verdict]:
    """The verdict on each pair, in order; 1 means that the chosen answer was preferred."""

    async def one(pair: Comparison) -> Verdict:
        asked = (judge, pair.conversation, pair.chosen, pair.rejected)
        try:
            return await prefer(*asked)
        except TooLong:  # a small context cannot hold the question: ask in few words
            with suppress(TooLong):
                verdict = await likelier(*asked)
                return verdict.model_copy(update={"judge": f"{judge.model}{BY_LIKELIHOOD}"})
            return Verdict(judge=judge.model, detail="?/?")

    return await gather(one, pairs, CONCURRENT, tick, "pairs")


async def judge_accuracy(
    judge: Completer, pairs: Sequence[Comparison], tick: Tick = silent
) -> dict[str, Any]:
    """{"accuracy", "decided", "accuracy_when_decided": {mean, low, high, n}, "outcomes": counts,
    "by_likelihood": pairs that were judged by `likelier`}.

    "accuracy" counts everything but a right verdict in both orders as wrong; "decided" is the share
    of pairs with one verdict in both orders. "accuracy_when_decided" is absent where none was.
    """
    found = await verdicts(judge, pairs, tick)
    decided = [verdict for verdict in found if verdict.preference]
    results: dict[str, Any] = {
        "judge": judge.model,
        "accuracy": bootstrap_mean([float(v.preference == 1) for v in found]).as_dict(),
        "decided": bootstrap_mean([float(v.preference != 0) for v in found]).as_dict(),
        "by_likelihood": sum(verdict.judge.endswith(BY_LIKELIHOOD) for verdict in found),
        "outcomes": dict(sorted(Counter(outcome(verdict) for verdict in found).items())),
    }
    if decided:
        right = [float(verdict.preference == 1) for verdict in decided]
        results["accuracy_when_decided"] = bootstrap_mean(right).as_dict()
    return results
