"""What a model holds likely: multiple choice by log-likelihood, and bits per byte of texts.

Nothing is generated. A choice's score is its log-probability per byte, so that length decides
nothing; the best-scored one is the answer.
"""

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from flywright.ask import Completer, gather
from flywright.ask.protocol import TooLong
from flywright.evals.choice import Choice, documents
from flywright.evals.items import Item
from flywright.progress import Tick, silent

CONCURRENT = 256


def question(text: str) -> str:
    """The form in which a question is asked, here and wherever it is trained on."""
    return f"Question: {text}\nAnswer:"


CHOICES: dict[str, Callable[[Path], Iterator[Choice]]] = {
    name: partial(documents, name) for name in ("arc_easy", "hellaswag", "piqa")
}


def chance(items: Sequence[Choice]) -> float:
    """What guessing scores."""
    return sum(1 / len(item.options) for item in items) / len(items)


async def choose(
    completer: Completer, metric: str, items: Sequence[Choice], tick: Tick = silent
) -> list[Item]:
    """An Item (1 or 0) for each Choice that fits the model's context; the others are left out."""

    async def one(item: Choice) -> list[Item]:
        texts = list(item.follows)
        try:
            likely = await completer.logprobs(item.asked[0], texts)
        except TooLong:
            return []
        scores = [value / len(text.encode()) for value, text in zip(likely, texts, strict=True)]
        best, truth = item.options[scores.index(max(scores))], item.options[item.gold]
        score = float(best == truth)
        named = {
            "id": f"{metric.removesuffix('_easy')}/{item.id}",
            "task": metric,
            "metric": metric,
        }
        return [Item(**named, score=score, answer=best, truth=truth)]

    found = await gather(one, items, CONCURRENT, tick, metric)
    return sorted(chain(*found), key=lambda item: item.key)


async def bits(completer: Completer, text: str) -> float:
    """-log2 p of a text: in windows that fit the context, each as if a document began there."""
    try:
        (likely,) = await completer.logprobs("", [text])
    except TooLong:
        middle = len(text) // 2
        halves = (text[:middle], text[middle:])
        return sum(await asyncio.gather(*(bits(completer, half) for half in halves)))
    return -likely / math.log(2)


async def bits_per_byte(completer: Completer, texts: Sequence[str]) -> float:
    """Bits of all texts over their UTF-8 bytes; 8 is a uniform guess at bytes."""
    found = await asyncio.gather(*(bits(completer, text) for text in texts))
    return sum(found) / sum(len(text.encode()) for text in texts)
