"""Sentences that mean the same in English, Spanish, German, French and Russian.

A sentence is subject, verb, object and place by number; each language has its words for them, the
objects already in the right case, so that word order is the only grammar needed.
"""

from functools import cache
from itertools import product
from random import Random

from flywright.world.words import table

LANGUAGES = {"Spanish": "es", "German": "de", "French": "fr", "Russian": "ru"}

_WORDS = table("languages")
OPENERS: dict[str, list[str]] = _WORDS.pop("openers")
_TABLES: list[dict[str, list[str]]] = [*_WORDS.values()]  # subjects, verbs, objects, places


Sentence = tuple[int, ...]  # the numbers of subject, verb, object and place (place 0 is none)


@cache
def _every_sentence() -> dict[str, Sentence]:
    numbers = product(*(range(len(words["en"])) for words in _TABLES))
    return {translate(sentence, "en"): sentence for sentence in numbers}


def read_sentence(english: str) -> Sentence:
    """The sentence behind its English words. Raises ValueError if it is none of ours."""
    if english not in _every_sentence():
        raise ValueError(f"not a sentence of this world: {english!r}")
    return _every_sentence()[english]


def draw_sentence(rng: Random, with_place: bool = False) -> Sentence:
    """A sentence at random."""
    subject, verb, thing, place = (rng.randrange(len(table["en"])) for table in _TABLES)
    return subject, verb, thing, place if with_place else 0


def translate(sentence: Sentence, language: str) -> str:
    """The sentence in one language (a code), capitalised, with a full stop."""
    chosen = [table[language][index] for table, index in zip(_TABLES, sentence, strict=True)]
    text = " ".join(part for part in chosen if part)
    return f"{text[0].upper()}{text[1:]}."
