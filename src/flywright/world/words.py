"""The fixed lexicon of the small world: short English words by kind, and invented proper names.

Everything else in this room draws from these lists (words.toml), so that a small model meets each
word often. Text is data: every table of this room is a TOML file beside its code.
"""

import re
from pathlib import Path
from random import Random
from typing import Any

from flywright.settings import read_toml


def table(name: str) -> dict[str, Any]:
    """What NAME.toml beside this file says."""
    return read_toml(Path(__file__).with_name(f"{name}.toml"))


LISTS: dict[str, tuple[str, ...]] = {
    name: tuple(words.split() if isinstance(words, str) else words)
    for name, words in table("words").items()
}
ANIMALS, COLOURS, FOODS = (LISTS[name] for name in ("animals", "colours", "foods"))
THINGS, JOBS, QUALITIES = (LISTS[name] for name in ("things", "jobs", "qualities"))
GUESTS, SORTABLE = LISTS["guests"], LISTS["sortable"]
WORDS = tuple(sorted({*ANIMALS, *COLOURS, *FOODS, *THINGS, *JOBS, *QUALITIES}))


def listed(values: str | list[str]) -> list[str]:
    """The values themselves, or those of the word lists that are named."""
    if isinstance(values, list):
        return values
    return [word for name in values.split() for word in LISTS[name]]


def invent_names(rng: Random, count: int, ending: str = "") -> list[str]:
    """`count` different invented names of two syllables: "Brelom", or with an ending."""
    onsets, vowels, codas = (LISTS[name] for name in ("onsets", "vowels", "codas"))
    names: dict[str, None] = {}
    taken = {word.capitalize() for word in WORDS} | set(GUESTS)
    while len(names) < count:
        start = rng.choice(onsets) + rng.choice(vowels)
        middle = rng.choice(codas if ending else onsets[:20])
        tail = ending or rng.choice(vowels) + rng.choice(codas)
        name = (start + middle + tail).capitalize()
        if name not in taken:
            names[name] = None
    return list(names)


def an(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def fill(form: str, rng: Random, **given: str) -> str:
    """A form as a sentence: {field} is what is given, else drawn from the list of that name.

    "{an colours}" puts the article before what is drawn.
    """

    def word(match: re.Match[str]) -> str:
        article, name = match.groups()
        found = given[name] if name in given else rng.choice(LISTS[name])
        return an(found) if article else found

    text = re.sub(r"\{(an )?(\w+)\}", word, form)
    return text[0].upper() + text[1:]
