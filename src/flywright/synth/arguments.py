"""Arguments of the 25 verifiable instructions (SPEC 10.6), and which cannot be asked together."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# (small, full): full are the ranges of SPEC 10.6; small ones suit answers of one or two sentences.
RANGES: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "sentences": ((1, 3), (1, 20)),
    "paragraphs": ((2, 2), (1, 5)),
    "words": ((4, 12), (100, 500)),
    "placeholders": ((1, 2), (1, 4)),
    "bullets": ((1, 3), (1, 5)),
    "highlights": ((1, 2), (1, 4)),
    "sections": ((1, 2), (1, 5)),
    "keywords": ((1, 1), (2, 2)),
    "keyword_frequency": ((1, 2), (1, 3)),
    "letters": ((1, 4), (1, 10)),
    "capitals": ((1, 3), (1, 20)),
}
RELATIONS = ("at least", "less than")
END_PHRASES = ("That is all.", "I hope this helps.", "Ask me more if you like.")
LANGUAGES = ("de", "fr", "es", "it")
FORBIDDEN = ("very", "really", "because", "good", "always", "never", "thing", "maybe")
SPARE_WORDS = ("garden", "river", "morning", "paper", "window", "simple", "season", "answer")
_TOO_COMMON = {"about", "with", "this", "that", "what", "when", "which", "write", "give", "have"}

_ALONE = {
    "detectable_format:constrained_response",
    "detectable_format:json_format",
    "combination:two_responses",
    "language:response_language",
}
_NOT_TOGETHER = tuple(
    frozenset(group.split())
    for group in (
        "change_case:english_capital change_case:english_lowercase "
        "change_case:capital_word_frequency",
        "change_case:english_lowercase detectable_content:postscript "
        "detectable_format:multiple_sections combination:repeat_prompt",
        "startend:quotation startend:end_checker detectable_content:postscript "
        "combination:repeat_prompt detectable_format:number_bullet_lists "
        "detectable_format:title detectable_format:multiple_sections",
        "detectable_format:number_bullet_lists detectable_format:number_highlighted_sections "
        "detectable_format:multiple_sections length_constraints:number_paragraphs "
        "length_constraints:nth_paragraph_first_word length_constraints:number_sentences "
        "length_constraints:number_words combination:repeat_prompt",
        "keywords:existence keywords:frequency keywords:forbidden_words keywords:letter_frequency",
        "punctuation:no_comma combination:repeat_prompt",
    )
)


def conflict(first: str, second: str) -> bool:
    """True if two instruction ids cannot both be asked of one answer."""
    pair = {first, second}
    return first == second or bool(pair & _ALONE) or any(pair <= g for g in _NOT_TOGETHER)


@dataclass
class Draw:
    """Draws arguments for one prompt's text; `full` takes the wide ranges."""

    rng: random.Random
    text: str
    full: bool

    def number(self, name: str) -> int:
        """A number in one of RANGES."""
        return self.rng.randint(*RANGES[name][self.full])

    def words(self, count: int) -> list[str]:
        """Words of the prompt, so that an answer can well use them; spare ones where it has few."""
        own = dict.fromkeys(re.findall(r"\b[a-z]{4,12}\b", self.text.lower()))
        fitting = [word for word in own if word not in _TOO_COMMON]
        return self.rng.sample(fitting if len(fitting) >= count else list(SPARE_WORDS), count)

    def relation(self, name: str) -> tuple[str, int]:
        """A relation and a number that it leaves room for ("less than 1" would leave none)."""
        relation, number = self.rng.choice(RELATIONS), self.number(name)
        return relation, number + (relation == RELATIONS[1])


Arguments = dict[str, Any]


def _keyword_frequency(draw: Draw) -> Arguments:
    relation, number = draw.relation("keyword_frequency")
    return {"keyword": draw.words(1)[0], "relation": relation, "frequency": number}


def _letters(draw: Draw) -> Arguments:
    relation, number = draw.relation("letters")
    letter = draw.rng.choice("abcdefghijklmnoprstuvw")
    return {"letter": letter, "let_relation": relation, "let_frequency": number}


def _sentences(draw: Draw) -> Arguments:
    relation, number = draw.relation("sentences")
    return {"relation": relation, "num_sentences": number}


def _words(draw: Draw) -> Arguments:
    relation, number = draw.relation("words")
    return {"relation": relation, "num_words": number}


def _capitals(draw: Draw) -> Arguments:
    relation, number = draw.relation("capitals")
    return {"capital_relation": relation, "capital_frequency": number}


def _nth_paragraph(draw: Draw) -> Arguments:
    count = draw.number("paragraphs")
    nth = draw.rng.randint(1, count)
    return {"num_paragraphs": count, "nth_paragraph": nth, "first_word": draw.words(1)[0]}


def _sections(draw: Draw) -> Arguments:
    name = draw.rng.choice(("Section", "Part"))
    return {"section_spliter": name, "num_sections": draw.number("sections")}


def _nothing(_draw: Draw) -> Arguments:
    return {}


ARGUMENTS: dict[str, Callable[[Draw], Arguments]] = {
    "keywords:existence": lambda d: {"keywords": d.words(d.number("keywords"))},
    "keywords:frequency": _keyword_frequency,
    "keywords:forbidden_words": lambda d: {
        "forbidden_words": d.rng.sample(FORBIDDEN, d.number("keywords"))
    },
    "keywords:letter_frequency": _letters,
    "language:response_language": lambda d: {"language": d.rng.choice(LANGUAGES)},
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": lambda d: {"num_paragraphs": d.number("paragraphs")},
    "length_constraints:number_words": _words,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda d: {
        "num_placeholders": d.number("placeholders")
    },
    "detectable_content:postscript": lambda d: {
        "postscript_marker": d.rng.choice(("P.S.", "P.P.S"))
    },
    "detectable_format:number_bullet_lists": lambda d: {"num_bullets": d.number("bullets")},
    "detectable_format:constrained_response": _nothing,
    "detectable_format:number_highlighted_sections": lambda d: {
        "num_highlights": d.number("highlights")
    },
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _nothing,
    "detectable_format:title": _nothing,
    "combination:two_responses": _nothing,
    "combination:repeat_prompt": lambda d: {"prompt_to_repeat": d.text},
    "startend:end_checker": lambda d: {"end_phrase": d.rng.choice(END_PHRASES)},
    "startend:quotation": _nothing,
    "change_case:capital_word_frequency": _capitals,
    "change_case:english_capital": _nothing,
    "change_case:english_lowercase": _nothing,
    "punctuation:no_comma": _nothing,
}
"""How to draw the arguments of each of the 25 instruction ids."""
