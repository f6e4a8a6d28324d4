"""An LLM as judge of two answers, asked in both orders; only what survives the swap counts.

verdict = await prefer(judge, conversation, first, second)     # .preference 1, -1 or 0
"""

import asyncio
import re
from collections.abc import Iterable

from flywright.ask import Completer, Sampling
from flywright.judge.prompts import fill, transcript
from flywright.records import Conversation, Verdict

JUDGING = Sampling(max_tokens=256, temperature=0.0)
_LABEL = re.compile(r"\[\[([ABC])\]\]")


def parse_label(text: str) -> str:
    """ "A", "B" or "C"; an empty string where there is no label, or where labels disagree."""
    labels = set(_LABEL.findall(text))
    return labels.pop() if len(labels) == 1 else ""


def question(conversation: Conversation, first: str, second: str) -> Conversation:
    """What the judge is asked, with `first` as answer A."""
    text = fill("pairwise", conversation=transcript(conversation), first=first, second=second)
    return Conversation.of(text)


async def prefer(
    judge: Completer,
    conversation: Conversation,
    first: str,
    second: str,
    sampling: Sampling = JUDGING,
) -> Verdict:
    """Ask twice with the order swapped: 1 if both say `first`, -1 if both say `second`, else 0.

    `detail` is "A/B" and the like: the labels of the two replies, each in its own order ("?" where
    none could be read), so that ties, position bias and failures can be counted apart.
    """
    replies = await asyncio.gather(
        judge.complete(question(conversation, first, second), sampling),
        judge.complete(question(conversation, second, first), sampling),
    )
    return _verdict(judge, [parse_label(reply.text) or "?" for reply in replies])


def _verdict(judge: Completer, labels: Iterable[str]) -> Verdict:
    detail = "/".join(labels)
    preference = {"A/B": 1, "B/A": -1}.get(detail, 0)
    return Verdict(judge=judge.model, preference=preference, detail=detail)


async def likelier(
    judge: Completer, conversation: Conversation, first: str, second: str
) -> Verdict:
    """The same in few words, for a context too small for `prefer`'s question: which letter the
    judge finds likelier to come next, in both orders. It never ties and is never unreadable.
    """

    async def letter(a: str, b: str) -> str:
        text = fill("likelier", conversation=transcript(conversation), first=a, second=b)
        plain = text.strip().replace("<extra_id_", "<extra id ")  # a raw context is parsed for it
        scores = await judge.logprobs(plain, [" A", " B"])
        return "AB"[scores[1] > scores[0]]

    return _verdict(judge, await asyncio.gather(letter(first, second), letter(second, first)))


def outcome(verdict: Verdict) -> str:
    """What a verdict's detail says: "decided", "tie", "inconsistent" or "unreadable"."""
    if "?" in verdict.detail:
        return "unreadable"
    if verdict.preference:
        return "decided"
    return "tie" if verdict.detail == "C/C" else "inconsistent"
