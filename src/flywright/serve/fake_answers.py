"""What the fake endpoint says: answers by hash, in the shape that the prompt asks for.

A list gets that many numbered items, a judge's prompt a verdict, a coding task code that runs, its
tests assert lines that hold; anything else gets a few sentences.
"""

import json
import random
import re
from collections.abc import Callable
from typing import Any

from flywright.files import seed_from
from flywright.records import ATTRIBUTES

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


def _code(draw: random.Random, _text: str) -> str:
    kept = draw.randint(1, 9)
    return f"```python\ndef solve(values):\n    return sorted(values)[:{kept}]\n```"


def _pair_verdict(draw: random.Random, _text: str) -> str:
    return f"One of them is clearer.\n[[{draw.choice('AABBC')}]]"


def _grade(draw: random.Random, _text: str) -> str:
    return f"It serves the user.\n[[{draw.randint(3, 9)}]]"


def _verdict(draw: random.Random, _text: str) -> str:
    return f"It was read with care.\nVerdict: {draw.choice(('Yes', 'Yes', 'No'))}"


def _score(draw: random.Random, _text: str) -> str:
    return json.dumps({"score": draw.randint(1, 5)})


def _yes_or_no(draw: random.Random, _text: str) -> str:
    return draw.choice(("Yes.", "No."))


def _sentences(draw: random.Random, _text: str) -> str:
    return " ".join(_sentence(draw) for _ in range(draw.randint(1, 3)))


# the first pattern that a prompt matches decides the shape of its answer
SHAPES: tuple[tuple[str, Callable[[random.Random, str], str]], ...] = (
    (r"\bnumbered list\b|\bas a list\b", _list),
    (r"\bassert lines\b", _asserts),
    (r"\[\[A\]\]", _pair_verdict),
    (r"\[\[\d+\]\]", _grade),
    (r"Verdict: Yes", _verdict),
    (r"```python|\bcode\b.*\bblock\b", _code),
    (r'"score"', _score),
    (r"\bYes\b.*\bNo\b", _yes_or_no),
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
