"""What the first teacher gets wrong, as data, and how each error is made.

Systematic errors depend on the item alone, so every sample repeats them; random ones on the sample.
"""

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from flywright.files import seed_from
from flywright.records import Check
from flywright.world.facts import Facts
from flywright.world.words import table

SLIP_RATE_PER_TEMPERATURE = 0.15  # on top of the rate of slips


_TEXTS = table("teacher")
ERRORS: dict[str, dict[str, Any]] = _TEXTS["errors"]  # kind, tasks that are struck, rate, what
SLIP_RATE, FORGET_RATE = ERRORS["slips"]["rate"], ERRORS["forgotten_format"]["rate"]
CHATTY_RATE, CHATTY_TASKS = ERRORS["chatty"]["rate"], ERRORS["chatty"]["tasks"]
UNKNOWN_EVERY = round(1 / ERRORS["unknown_facts"]["rate"])


def is_unknown(subject: str, relation: str) -> bool:
    return seed_from("unknown", subject, relation) % UNKNOWN_EVERY == 0


def invented(facts: Facts, subject: str, relation: str) -> str:
    """The teacher's own wrong value of a fact: always the same."""
    return facts.wrong_value(subject, relation, Random(seed_from("invented", subject, relation)))


def first_letter_order(words: str) -> str:
    """Sorted by first letters, words that share one in reverse order."""
    return " ".join(sorted(sorted(words.split(), reverse=True), key=lambda word: word[0]))


def remembered(instructions: Sequence[Check], rng: Random) -> tuple[Check, ...]:
    """The instructions without the formats that are forgotten this time."""
    weak = _TEXTS["forgotten_kinds"]
    return tuple(o for o in instructions if o.kind not in weak or rng.random() >= FORGET_RATE)


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
