"""Prompts that people wrote (SPEC 6.4, 6.5): first user turns of logs, and how hard they are.

Read: ShareGPT's "conversations" (also as "items", "messages" or "conversation", with from/value or
role/content), LMSYS-Chat-1M's and WildChat's rows with their moderation, hh-rlhf's transcripts,
and rows with a plain "prompt", "instruction" or "text".
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from flywright.ask.protocol import Completer, Scorer
from flywright.data import turns
from flywright.data.rows import Row
from flywright.data.turns import LeftOut
from flywright.records import Conversation, Dialogue, Lineage, Message, Prompt, record_id
from flywright.stats import bootstrap_mean
from flywright.synth.filters import noted
from flywright.synth.maker import Maker
from flywright.synth.prompts import UNSAFE

_LISTS = ("conversation", "conversations", "messages", "items")
_TEXTS = ("prompt", "instruction", "question", "chosen", "text")
_MARKS = ("openai_moderation", "moderation")


def _messages(row: Row) -> Sequence[Message]:
    listed: Any = next((row[name] for name in _LISTS if row.get(name)), None)
    if listed is not None:
        if isinstance(listed, str):  # a list of turns inside a table's cell
            listed = json.loads(listed)
        return turns.from_messages(listed[:2])  # with a system message, its first user turn
    text = next((row[name] for name in _TEXTS if row.get(name)), None)
    if isinstance(text, list):
        return turns.from_messages(text[:2])
    if not isinstance(text, str):
        raise LeftOut("of no known layout")
    begins = text.startswith("\n\nHuman:")
    return turns.from_transcript(text) if begins else [Message(role="user", content=text)]


def first_turn(row: Row) -> str:
    """What the user says first. Raises LeftOut with the reason where nothing can be taken."""
    try:
        said = [message for message in _messages(row) if message.role != "system"]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise LeftOut("of no known layout") from None
    if not said or said[0].role != "user":
        raise LeftOut("the assistant speaks first")
    if not said[0].content.strip():
        raise LeftOut("an empty turn")
    return said[0].content.strip()


def flagged(row: Row) -> bool:
    """Whether any turn was flagged as possibly unsafe: "flagged", "toxic", or moderation marks."""
    marks = [mark for name in _MARKS for mark in row.get(name) or ()]
    own = any(row.get(name) is True for name in ("flagged", "toxic", UNSAFE))
    return own or any(isinstance(mark, dict) and mark.get("flagged") for mark in marks)


def first_turns(rows: Iterable[Row], source: str) -> tuple[list[Prompt], dict[str, int]]:
    """(prompts, counts of the rows left out by reason); flagged ones have an "unsafe" score."""
    found, left = [], Counter[str]()
    for row in rows:
        try:
            text = first_turn(row)
        except LeftOut as why:
            left[str(why)] += 1
            continue
        scores = {UNSAFE: 1.0} if flagged(row) else {}
        lineage = Lineage(source=source, scores=scores)
        conversation = Conversation.of(text)
        found.append(
            Prompt(
                id=record_id(source, text), conversation=conversation, task=source, lineage=lineage
            )
        )
    return found, dict(left)


async def rated(maker: Maker, prompts: Sequence[Prompt], scorer: Scorer) -> list[Dialogue]:
    """One greedy answer to each prompt, with its attributes in the lineage."""

    async def step(prompt: Prompt, ask: Completer) -> list[Dialogue]:
        answer, sampling = await maker.say(ask, prompt.conversation, greedy=True)
        talk = prompt.conversation.answered(answer)
        lineage = maker.lineage(
            "difficulty", sampling=sampling, parents=(prompt.id,), answer_by="model"
        )
        lineage = noted(lineage, f"rated by {scorer.model}", **await scorer.score(talk))
        name = record_id("difficulty", prompt.id, ask.model)
        return [Dialogue(id=name, conversation=talk, task=prompt.task, lineage=lineage)]

    return await maker.run("difficulty", step, prompts)


def difficulty(answers: Iterable[Dialogue]) -> dict[str, dict[str, float]]:
    """Mean helpfulness of one model's answers by source, the hardest first (SPEC 6.5).

    {source: {mean, low, high, n}}, with 95 % bootstrap intervals.
    """
    values: dict[str, list[float]] = {}
    for answer in answers:
        values.setdefault(answer.task, []).append(answer.lineage.scores["helpfulness"])
    table = {source: bootstrap_mean(each).as_dict() for source, each in values.items()}
    return dict(sorted(table.items(), key=lambda row: row[1]["mean"]))
