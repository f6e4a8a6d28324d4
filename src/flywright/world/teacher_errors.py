"""What the first teacher gets wrong, as data, and how each error is made.

Systematic errors depend on the item alone, so every sample repeats them; random ones on the sample.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from flywright.files import seed_from
from flywright.world.facts import Fact, Facts
from flywright.world.reader import Reading
from flywright.world.words import table

SLIP_RATE_PER_TEMPERATURE = 0.15  # on top of the rate of slips


@dataclass(frozen=True)
class ErrorFamily:
    """One family of errors: the tasks it strikes, and the share of its cases that are struck."""

    name: str
    kind: Literal["systematic", "format", "verbosity", "random"]
    tasks: tuple[str, ...]
    rate: float
    what: str


_TEXTS = table("teacher")
ERRORS = tuple(ErrorFamily(**{**row, "tasks": tuple(row["tasks"])}) for row in _TEXTS["errors"])
_RATES = {family.name: family.rate for family in ERRORS}
SLIP_RATE, FORGET_RATE, CHATTY_RATE = (_RATES[n] for n in ("slips", "forgotten_format", "chatty"))
CHATTY_TASKS = next(family.tasks for family in ERRORS if family.name == "chatty")
UNKNOWN_EVERY = round(1 / _RATES["unknown_facts"])


def is_unknown(subject: str, relation: str) -> bool:
    """True for the facts that the teacher does not know."""
    return seed_from("unknown", subject, relation) % UNKNOWN_EVERY == 0


def invented(facts: Facts, subject: str, relation: str) -> str:
    """The teacher's own wrong value of a fact: always the same."""
    fact = Fact(subject, relation, facts.value(subject, relation))
    return facts.wrong_value(fact, Random(seed_from("invented", subject, relation)))


def first_letter_order(words: str) -> str:
    """Sorted by first letters, words that share one in reverse order."""
    return " ".join(sorted(sorted(words.split(), reverse=True), key=lambda word: word[0]))


def forgets(reading: Reading, rng: Random) -> Reading:
    """The reading without the formats that are forgotten this time."""
    kept = tuple(
        one
        for one in reading.instructions
        if one.kind not in _TEXTS["forgotten_kinds"] or rng.random() >= FORGET_RATE
    )
    return Reading(reading.family, reading.fields, kept, reading.previous)


def chatty(answer: str) -> str:
    """The answer in politeness; a program no longer finds it."""
    return f"Sure! I am happy to help. You asked me, and I think it is {answer}. I hope this helps!"


def _swap_words(text: str, rng: Random) -> str:
    words = text.split(" ")
    first, second = rng.sample(range(len(words)), 2)
    words[first], words[second] = words[second], words[first]
    return " ".join(words)


def _change_digit(text: str, rng: Random) -> str:
    place = rng.choice([match.start() for match in re.finditer(r"\d", text)])
    return text[:place] + str((int(text[place]) + rng.randint(1, 9)) % 10) + text[place + 1 :]


def _change_operator(text: str, rng: Random) -> str:
    pairs = ((" + ", " - "), (" - ", " + "), (" * ", " + "), ("return ", "print "), ("[", "("))
    fitting = [pair for pair in pairs if pair[0] in text]
    if not fitting:
        return _change_letter(text, rng)
    old, new = rng.choice(fitting)
    return text.replace(old, new, 1)


def _change_letter(text: str, rng: Random) -> str:
    place = rng.randrange(len(text))
    return text[:place] + rng.choice("aeiostrn") + text[place + 1 :]


def slip(answer: str, rng: Random) -> str:
    """The answer with one slip that changes it, of a sort that fits it."""
    ways: list[Callable[[str, Random], str]] = [_change_letter]
    if answer.startswith("def "):
        ways = [_change_operator]
    elif re.search(r"\d", answer):
        ways = [_change_digit]
    elif len(set(answer.split(" "))) > 1:
        ways = [_swap_words, lambda text, rng: text.rsplit(" ", 1)[0]]
    changed = rng.choice(ways)(answer, rng) if answer else answer
    return changed if changed != answer else f"{answer} {answer}"
