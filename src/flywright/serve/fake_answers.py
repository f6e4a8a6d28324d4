"""What the fake endpoint says: answers by hash, in the shape that the prompt asks for.

A list gets that many numbered items, a judge's prompt a verdict, a coding task code that runs, its
tests assert lines that hold; anything else gets a few sentences.
"""

import random
import re
from pathlib import Path
from typing import Any

from flywright.files import seed_from
from flywright.records import ATTRIBUTES
from flywright.settings import read_toml

_SAID = read_toml(Path(__file__).with_suffix(".toml"))


def _list(draw: random.Random, text: str) -> str:
    return "\n".join(f"{i}. {_item(draw, text)}" for i in range(1, _count(text) + 1))


def _asserts(draw: random.Random, text: str) -> str:
    name = re.search(r"def (\w+)\(", text)
    call = name.group(1) if name else "solve"
    starts = draw.sample(range(10, 99), min(_count(text), 89))
    return "\n".join(f"assert {call}([{start}, 7])[0] == 7" for start in starts)


def _sentences(draw: random.Random, _text: str) -> str:
    return " ".join(_sentence(draw) for _ in range(draw.randint(1, 3)))


_MADE = {"list": _list, "asserts": _asserts, "sentences": _sentences}


def fake_answer(text: str, seed: int, context: str = "") -> str:
    """The answer to a prompt's last text, drawn from a hash of seed, text and what came before."""
    draw = random.Random(seed_from(seed, text, context))
    shape = next(shape for shape in _SAID["shapes"] if re.search(shape["pattern"], text))
    if "made" in shape:
        return _MADE[shape["made"]](draw, text)
    return shape["around"] % draw.choice(shape["words"])


def _count(text: str) -> int:
    """How many are asked for: the first number in the text."""
    found = re.search(r"\b(\d{1,3})\b", text)
    return int(found.group(1)) if found else 5


def _item(draw: random.Random, text: str) -> str:
    """A list item; the kind of thing asked for decides whether it is a name or a request."""
    first, second = draw.sample(_SAID["words"], 2)
    asked = text.splitlines()[0]
    if re.search(r"\b(topics|ideas)\b", asked) and not re.search(
        r"\b(problems|questions)\b", asked
    ):
        return f"the {first} and the {second} {draw.randint(2, 999)}"
    return f"How does the {first} change the {second} in the year {draw.randint(1000, 1999)}?"


def _sentence(draw: random.Random) -> str:
    first, second, third = draw.sample(_SAID["words"], 3)
    return f"The {first} of the {second} needs a {third}."


def fake_attributes(messages: list[dict[str, Any]], seed: int) -> dict[str, float]:
    """Five attributes between 0 and 4, by hash of the conversation."""
    draw = random.Random(seed_from(seed, "attributes", messages))
    return {name: round(draw.uniform(0, 4), 3) for name in ATTRIBUTES}
