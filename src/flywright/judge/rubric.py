"""Single-answer grading from 1 to 10 by an LLM, with a reference answer where there is one."""

import re

from flywright.ask import Completer, Sampling
from flywright.judge.prompts import fill, transcript
from flywright.records import Conversation, Verdict

GRADING = Sampling(max_tokens=256, temperature=0.0)
_GRADES = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))


def parse_grade(text: str) -> float | None:
    """The first grade in double brackets, else in single ones; None outside 1-10 or without one."""
    for pattern in _GRADES:
        found = pattern.search(text)
        if found:
            grade = float(found.group(1))
            return grade if 1 <= grade <= 10 else None
    return None


async def grade(
    judge: Completer,
    conversation: Conversation,
    answer: str,
    reference: str = "",
    sampling: Sampling = GRADING,
) -> Verdict:
    """The judge's grade as `score`, None where none could be read; `preference` stays 0."""
    shown = f"\n<reference answer>\n{reference}\n</reference answer>\n" if reference else ""
    text = fill("grade", conversation=transcript(conversation), answer=answer, reference=shown)
    reply = await judge.complete(Conversation.of(text), sampling)
    return Verdict(judge=judge.model, score=parse_grade(reply.text), detail=reply.text[-200:])
