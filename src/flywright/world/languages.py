"""Sentences that mean the same in English, Spanish, German, French and Russian.

A sentence is subject, verb, object and place by number; each language has its words for them, the
objects already in the right case, so that word order is the only grammar needed.
"""

from dataclasses import dataclass
from random import Random

from flywright.world.words import table

LANGUAGES = {"Spanish": "es", "German": "de", "French": "fr", "Russian": "ru"}

_WORDS = table("languages")
OPENERS: dict[str, list[str]] = _WORDS.pop("openers")
_TABLES: list[dict[str, list[str]]] = [*_WORDS.values()]  # subjects, verbs, objects, places


@dataclass(frozen=True)
class Sentence:
    """The numbers of subject, verb, object and place (place 0 is none)."""

    parts: tuple[int, int, int, int]

    @classmethod
    def read(cls, english: str) -> "Sentence":
        """The sentence behind its English words. Raises ValueError if it is none of ours."""
        rest, parts = english[0].lower() + english[1:].rstrip("."), []
        for words_of in _TABLES[:3]:
            index = next(
                (i for i, words in enumerate(words_of["en"]) if rest.startswith(words)), -1
            )
            if index < 0:
                raise ValueError(f"not a sentence of this world: {english!r}")
            rest = rest[len(words_of["en"][index]) :].strip()
            parts.append(index)
        places = _TABLES[3]["en"]
        if rest not in places:
            raise ValueError(f"not a sentence of this world: {english!r}")
        return cls((parts[0], parts[1], parts[2], places.index(rest)))


def draw_sentence(rng: Random, with_place: bool = False) -> Sentence:
    """A sentence at random."""
    subject, verb, thing, place = (rng.randrange(len(table["en"])) for table in _TABLES)
    return Sentence((subject, verb, thing, place if with_place else 0))


def translate(sentence: Sentence, language: str) -> str:
    """The sentence in one language (a code), capitalised, with a full stop."""
    chosen = [table[language][index] for table, index in zip(_TABLES, sentence.parts, strict=True)]
    text = " ".join(part for part in chosen if part)
    return f"{text[0].upper()}{text[1:]}."
