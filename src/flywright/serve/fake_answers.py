"""What the fake endpoint says: answers by hash, in the shape that the prompt asks for.

A list gets that many numbered items, a judge's prompt a verdict, a coding task code that runs, its
tests assert lines that hold; anything else gets a few sentences.
"""

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from flywright.files import seed_from
from flywright.records import ATTRIBUTES

Answer = Callable[[random.Random, str], str]
CODE = "```python\ndef solve(values):\n    return sorted(values)[:%s]\n```"
WORDS = (
    *("river", "stone", "garden", "letter", "market", "winter", "engine", "planet", "colour"),
    *("number", "story", "bridge", "music", "forest", "island", "window", "history", "kitchen"),
)


def _list(draw: random.Random, text: str) -> str:
    return "\n".join(f"{i}. {_item(draw, text)}" for i in range(1, _count(text) + 1))


def _asserts(draw: random.Random, text: str) -> str:
    name = re.search(r"def (\w+)\(", text)
    call = name.group(1) if name else "solve"
    starts = draw.sample(range(10, 99), min(_count(text), 89))
    return "\n".join(f"assert {call}([{start}, 7])[0] == 7" for start in starts)


def _sentences(draw: random.Random, _text: str) -> str:
    return " ".join(_sentence(draw) for _ in range(draw.randint(1, 3)))


def _one_of(words: Sequence[Any], around: str) -> Answer:
    """One of the words in the place of %s."""
    return lambda draw, _text: around % draw.choice(words)


# the first pattern that a prompt matches decides the shape of its answer
SHAPES: tuple[tuple[str, Answer], ...] = (
    (r"\bnumbered list\b|\bas a list\b", _list),
    (r"\bassert lines\b", _asserts),
    (r"\[\[A\]\]", _one_of("AABBC", "One of them is clearer.\n[[%s]]")),
    (r"\[\[\d+\]\]", _one_of(range(3, 10), "It serves the user.\n[[%s]]")),
    (r"Verdict: Yes", _one_of(("Yes", "Yes", "No"), "It was read with care.\nVerdict: %s")),
    (r"```python|\bcode\b.*\bblock\b", _one_of(range(1, 10), CODE)),
    (r'"score"', _one_of(range(1, 6), '{"score": %s}')),
    (r"\bYes\b.*\bNo\b", _one_of(("Yes", "No"), "%s.")),
    (r"", _sentences),
)


def fake_answer(text: str, seed: int, context: str = "") -> str:
    """The answer to a prompt's last text, drawn from a hash of seed, text and what came before."""
    draw = random.Random(seed_from(seed, text, context))
    answer = next(answer for pattern, answer in SHAPES if re.search(pattern, text))
    return answer(draw, text)


def _count(text: str) -> int:
    """How many are asked for: the first number in the text."""
    found = re.search(r"\b(\d{1,3})\b", text)
    return int(found.group(1)) if found else 5


def _item(draw: random.Random, text: str) -> str:
    """A list item; the kind of thing asked for decides whether it is a name or a request."""
    first, second = draw.sample(WORDS, 2)
    asked = text.splitlines()[0]
    if re.search(r"\b(topics|ideas)\b", asked) and not re.search(
        r"\b(problems|questions)\b", asked
    ):
        return f"the {first} and the {second} {draw.randint(2, 999)}"
    return f"How does the {first} change the {second} in the year {draw.randint(1000, 1999)}?"


def _sentence(draw: random.Random) -> str:
    first, second, third = draw.sample(WORDS, 3)
    return f"The {first} of the {second} needs a {third}."


def fake_attributes(messages: list[dict[str, Any]], seed: int) -> dict[str, float]:
    """Five attributes between 0 and 4, by hash of the conversation."""
    draw = random.Random(seed_from(seed, "attributes", messages))
    return {name: round(draw.uniform(0, 4), 3) for name in ATTRIBUTES}
