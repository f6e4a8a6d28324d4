"""The fixed lexicon of the small world: short English words by kind, and invented proper names.

Everything else in this room draws from these lists (words.toml), so that a small model meets each
word often. Text is data: every table of this room is a TOML file beside its code.
"""

from pathlib import Path
from random import Random
from typing import Any

from flywright.settings import read_toml


def table(name: str) -> dict[str, Any]:
    """What NAME.toml beside this file says."""
    return read_toml(Path(__file__).with_name(f"{name}.toml"))


_LISTS: dict[str, tuple[str, ...]] = {
    name: tuple(words.split() if isinstance(words, str) else words)
    for name, words in table("words").items()
}
ANIMALS, COLOURS, FOODS = (_LISTS[name] for name in ("animals", "colours", "foods"))
THINGS, JOBS, QUALITIES = (_LISTS[name] for name in ("things", "jobs", "qualities"))
VERBS, PLACES, TIMES = (_LISTS[name] for name in ("verbs", "places", "times"))
GUESTS, SORTABLE = _LISTS["guests"], _LISTS["sortable"]
WORDS = tuple(sorted({*ANIMALS, *COLOURS, *FOODS, *THINGS, *JOBS, *QUALITIES}))
_ONSETS, _VOWELS, _CODAS = (_LISTS[name] for name in ("onsets", "vowels", "codas"))


def invent_names(rng: Random, count: int, ending: str = "") -> list[str]:
    """`count` different invented names of two syllables: "Brelom", or with an ending."""
    names: dict[str, None] = {}
    taken = {word.capitalize() for word in WORDS} | set(GUESTS)
    while len(names) < count:
        start = rng.choice(_ONSETS) + rng.choice(_VOWELS)
        middle = rng.choice(_CODAS if ending else _ONSETS[:20])
        tail = ending or rng.choice(_VOWELS) + rng.choice(_CODAS)
        name = (start + middle + tail).capitalize()
        if name not in taken:
            names[name] = None
    return list(names)


def an(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def spelled(word: str) -> str:
    """The letters with spaces between them: "c a t"."""
    return " ".join(word)
