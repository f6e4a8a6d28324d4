"""Arguments of the 25 verifiable instructions (SPEC 10.6), and which cannot be asked together."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flywright.settings import read_toml

_DATA = read_toml(Path(__file__).with_suffix(".toml"))
RELATIONS = ("at least", "less than")
SHORT_KINDS = tuple(_DATA["short"])
FIRST_ANSWER = frozenset(_DATA["first_answer"])  # not asked for all turns, nor of a second answer


def conflict(first: str, second: str) -> bool:
    """True if two instruction ids cannot both be asked of one answer."""
    pair = {first, second}
    if first == second or not pair.isdisjoint(_DATA["alone"]):
        return True
    return any(pair.issubset(group) for group in _DATA["not_together"])


@dataclass
class Draw:
    """Draws arguments for one prompt's text; `full` takes the wide ranges."""

    rng: random.Random
    text: str
    full: bool

    def number(self, name: str) -> int:
        """A number in the range of that name."""
        return self.rng.randint(*_DATA["ranges"][name][self.full])

    def words(self, count: int) -> list[str]:
        """Words of the prompt, so that an answer can well use them; spare ones where it has few."""
        own = dict.fromkeys(re.findall(r"\b[a-z]{4,12}\b", self.text.lower()))
        fitting = [word for word in own if word not in _DATA["too_common"]]
        return self.rng.sample(fitting if len(fitting) >= count else _DATA["spare_words"], count)

    def relation(self, name: str) -> tuple[str, int]:
        """A relation and a number that it leaves room for ("less than 1" would leave none)."""
        relation, number = self.rng.choice(RELATIONS), self.number(name)
        return relation, number + (relation == RELATIONS[1])


Arguments = dict[str, Any]


def _counted(range_name: str, relation: str, number: str) -> Callable[[Draw], Arguments]:
    """At least, or less than, so many; the last two name the arguments."""
    return lambda draw: dict(zip((relation, number), draw.relation(range_name), strict=True))


def _keyword_frequency(draw: Draw) -> Arguments:
    counted = _counted("keyword_frequency", "relation", "frequency")(draw)
    return counted | {"keyword": draw.words(1)[0]}


def _letters(draw: Draw) -> Arguments:
    counted = _counted("letters", "let_relation", "let_frequency")(draw)
    return counted | {"letter": draw.rng.choice("abcdefghijklmnoprstuvw")}


def _nth_paragraph(draw: Draw) -> Arguments:
    count = draw.number("paragraphs")
    nth = draw.rng.randint(1, count)
    return {"num_paragraphs": count, "nth_paragraph": nth, "first_word": draw.words(1)[0]}


def _sections(draw: Draw) -> Arguments:
    name = draw.rng.choice(("Section", "Part"))
    return {"section_spliter": name, "num_sections": draw.number("sections")}


def _chosen(texts: dict[str, list[str]], draw: Draw) -> Arguments:
    return {name: draw.rng.choice(some) for name, some in texts.items()}


def _numbered(ranges: dict[str, str], draw: Draw) -> Arguments:
    return {name: draw.number(range_name) for name, range_name in ranges.items()}


ARGUMENTS: dict[str, Callable[[Draw], Arguments]] = {
    **{kind: lambda _: {} for kind in _DATA["without_arguments"]},
    **{kind: partial(_chosen, texts) for kind, texts in _DATA["texts"].items()},
    **{kind: partial(_numbered, ranges) for kind, ranges in _DATA["numbers"].items()},
    "keywords:existence": lambda d: {"keywords": d.words(d.number("keywords"))},
    "keywords:frequency": _keyword_frequency,
    "keywords:forbidden_words": lambda d: {
        "forbidden_words": d.rng.sample(_DATA["forbidden"], d.number("keywords"))
    },
    "keywords:letter_frequency": _letters,
    "length_constraints:number_sentences": _counted("sentences", "relation", "num_sentences"),
    "length_constraints:number_words": _counted("words", "relation", "num_words"),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_format:multiple_sections": _sections,
    "combination:repeat_prompt": lambda d: {"prompt_to_repeat": d.text},
    "change_case:capital_word_frequency": _counted(
        "capitals", "capital_relation", "capital_frequency"
    ),
}
"""How to draw the arguments of each of the 25 instruction ids."""
