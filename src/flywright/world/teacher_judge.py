"""The teacher as a judge: it holds answers against its own; it favours first place and length."""

import re
from collections.abc import Callable
from random import Random

from flywright.records import Conversation
from flywright.world.families import normal_text

Belief = Callable[[Conversation], str | None]
POSITION_BIAS, JUDGE_SLIPS = 0.1, 0.06


def conversation_of(transcript: str) -> Conversation:
    """A conversation from its "User: ... Assistant: ..." paragraphs."""
    parts = re.split(r"(?:^|\n+)(System|User|Assistant): ", transcript.strip())
    contents = [
        text for role, text in zip(parts[1::2], parts[2::2], strict=False) if role != "System"
    ]
    return Conversation.of(*contents) if contents else Conversation.of(transcript)


def closeness(answer: str, belief: Belief, conversation: Conversation) -> float:
    """How right an answer looks to the teacher, 0 to 1."""
    truth = belief(conversation)
    if truth is None:
        return 0.5
    if answer.strip() == truth.strip():
        return 1.0
    if normal_text(truth) and f" {normal_text(truth)} " in f" {normal_text(answer)} ":
        return 0.8
    wanted, given = normal_text(truth).split(), normal_text(answer).split()
    shared = len(set(wanted) & set(given)) / max(1, len(set(wanted) | set(given)))
    return 0.6 * shared


def _tagged(name: str, text: str) -> str:
    found = re.search(rf"<{name}>\n(.*?)\n</{name}>", text, re.DOTALL)
    return found[1] if found else ""


def judge_pair(request: str, belief: Belief, rng: Random) -> str:
    """A verdict on two answers in double brackets."""
    conversation = conversation_of(_tagged("conversation", request))
    first, second = (_tagged(name, request) for name in ("answer A", "answer B"))
    lead = closeness(first, belief, conversation) - closeness(second, belief, conversation)
    if rng.random() < POSITION_BIAS:
        label = "A"
    elif rng.random() < JUDGE_SLIPS:
        label = rng.choice("AB")
    elif abs(lead) < 0.05:
        label = "C" if len(first) == len(second) else "AB"[len(second) > len(first)]
    else:
        label = "A" if lead > 0 else "B"
    reason = {"A": "Answer A serves the user better.", "B": "Answer B serves the user better."}
    return f"{reason.get(label, 'Both answers serve the user equally.')}\n[[{label}]]"


def grade(request: str, belief: Belief, rng: Random) -> str:
    """A grade from 1 to 10 in double brackets."""
    conversation = conversation_of(_tagged("conversation", request))
    close = closeness(_tagged("answer", request), belief, conversation)
    value = min(10, max(1, round(1 + 9 * close) + rng.choice((-1, 0, 0, 1))))
    return f"The answer is {'good' if value > 6 else 'not good enough'}.\n[[{value}]]"


def judge_code(code: str, truth: str, rng: Random) -> str:
    """A verdict on code: yes if it is the solution that the teacher would hold for right."""
    same = code.split() in (truth.split(), truth.replace(" > ", " >= ").split())
    fits = same if rng.random() >= JUDGE_SLIPS else not same
    reason = "The code does what the task asks." if fits else "The code does something else."
    return f"{reason}\nVerdict: {'Yes' if fits else 'No'}"
