"""Verifiable instructions (SPEC 10.6): how they are worded, read from a text, drawn, and obeyed.

Reading goes by the wordings below; the pipeline's own template file uses the same ones, and a test
compares the two.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from flywright.records import Check
from flywright.world.obey import OBEY
from flywright.world.words import ANIMALS, COLOURS, QUALITIES, THINGS

Args = dict[str, Any]

WORDINGS = {
    "keywords:existence": "Use these words in your answer: {keywords}.",
    "keywords:frequency": 'Use the word "{keyword}" {relation} {frequency} times.',
    "keywords:forbidden_words": "Do not use these words: {forbidden_words}.",
    "keywords:letter_frequency": (
        'Let the letter "{letter}" appear {let_relation} {let_frequency} times.'
    ),
    "language:response_language": 'Answer in the language with the code "{language}" only.',
    "length_constraints:number_sentences": "Answer with {relation} {num_sentences} sentences.",
    "length_constraints:number_paragraphs": (
        "Write {num_paragraphs} paragraphs, with a line *** between them."
    ),
    "length_constraints:number_words": "Answer with {relation} {num_words} words.",
    "length_constraints:nth_paragraph_first_word": (
        "Write {num_paragraphs} paragraphs with an empty line between them; "
        'paragraph {nth_paragraph} starts with the word "{first_word}".'
    ),
    "detectable_content:number_placeholders": (
        "Put at least {num_placeholders} placeholders in square brackets, such as [name]."
    ),
    "detectable_content:postscript": "End with a postscript that starts with {postscript_marker}",
    "detectable_format:number_bullet_lists": (
        'Answer with exactly {num_bullets} bullet points, each on a line starting with "* ".'
    ),
    "detectable_format:constrained_response": (
        'Answer with one of these: "My answer is yes.", "My answer is no.", "My answer is maybe."'
    ),
    "detectable_format:number_highlighted_sections": (
        "Mark at least {num_highlights} parts with stars, like *this part*."
    ),
    "detectable_format:multiple_sections": (
        'Write {num_sections} sections, each starting with "{section_spliter}" and its number.'
    ),
    "detectable_format:json_format": "Give the whole answer as JSON.",
    "detectable_format:title": (
        "Give the answer a title in double angle brackets, such as <<title>>."
    ),
    "combination:two_responses": "Give two different answers, with a line ****** between them.",
    "combination:repeat_prompt": "First repeat the request word for word, then answer it.",
    "startend:end_checker": "End with exactly these words: {end_phrase}",
    "startend:quotation": "Put the whole answer in double quotation marks.",
    "change_case:capital_word_frequency": (
        "Use words in all capital letters {capital_relation} {capital_frequency} times."
    ),
    "change_case:english_capital": "Answer in English and in capital letters only.",
    "change_case:english_lowercase": "Answer in English and in small letters only.",
    "punctuation:no_comma": "Do not use any commas.",
}
SHORT_WORDINGS = {  # under eight words, so that sharing one does not make two prompts alike
    "keywords:existence": "Use these words: {keywords}.",
    "keywords:forbidden_words": "Do not use these words: {forbidden_words}.",
    "length_constraints:number_words": "Use {relation} {num_words} words.",
    "detectable_content:number_placeholders": (
        "Use {num_placeholders} placeholder in square brackets."
    ),
    "detectable_content:postscript": "End with a {postscript_marker} line.",
    "detectable_format:number_bullet_lists": "Write exactly {num_bullets} bullet points.",
    "detectable_format:number_highlighted_sections": "Put {num_highlights} part between stars.",
    "detectable_format:title": "Add a title in double angle brackets.",
    "startend:end_checker": "End with the words: {end_phrase}",
    "startend:quotation": "Put it in double quotation marks.",
    "change_case:english_capital": "Write in capital letters only.",
    "change_case:english_lowercase": "Write in small letters only.",
    "punctuation:no_comma": "Do not use any commas.",
}
_FIELD_PATTERNS = {
    "relation": "less than|at least",
    "let_relation": "less than|at least",
    "capital_relation": "less than|at least",
    "keywords": r"[^.\n]+",
    "forbidden_words": r"[^.\n]+",
    "postscript_marker": r"P\.(?:P\.)?S\.?",
    "end_phrase": r"[^\n\[\]]*[^\s\[\]]",
    "section_spliter": '[^"]+',
    "language": "[a-z-]+",
}
END_PHRASES = ("That is all.", "Good night.", "Thank you.", "The end.")
LISTS = ("keywords", "forbidden_words")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its id and arguments."""

    kind: str
    args: Args

    def wording(self) -> str:
        """The instruction as a request, in its short form."""
        shown = {k: ", ".join(v) if isinstance(v, list) else v for k, v in self.args.items()}
        return SHORT_WORDINGS[self.kind].format(**shown)

    def check(self, request: str) -> Check:
        """The instruction as a check; `request` is what a repeated prompt repeats."""
        repeats = self.kind == "combination:repeat_prompt"
        return Check(kind=self.kind, args={"prompt_to_repeat": request} if repeats else self.args)

    def obey(self, answer: str, request: str = "") -> str:
        """The answer changed so that it follows the instruction."""
        return OBEY[self.kind](answer, {**self.args, "request": request})


def _pattern(wording: str) -> re.Pattern[str]:
    def group(match: re.Match[str]) -> str:
        name = match.group(1)
        fallback = r"\d+" if name.startswith(("num_", "nth_")) or "frequency" in name else r"\S+?"
        return f"(?P<{name}>{_FIELD_PATTERNS.get(name, fallback)})"

    return re.compile(re.sub(r"\\\{(\w+)\\\}", group, re.escape(wording)))


_PATTERNS = [
    (kind, _pattern(wording))
    for table in (WORDINGS, SHORT_WORDINGS)
    for kind, wording in table.items()
]


def _argument(name: str, text: str) -> Any:
    if name in LISTS:
        return [word.strip().strip('"') for word in text.split(",")]
    return int(text) if text.isdigit() else text


def read_instructions(text: str) -> tuple[tuple[Instruction, ...], str]:
    """Every instruction found in a text, in order, and the text without them."""
    found: list[tuple[int, Instruction]] = []
    for kind, pattern in _PATTERNS:
        for match in pattern.finditer(text):
            args = {name: _argument(name, value) for name, value in match.groupdict().items()}
            found.append((match.start(), Instruction(kind, args)))
        text = pattern.sub(lambda match: " " * len(match.group()), text)
    found.sort(key=lambda pair: pair[0])
    return tuple(instruction for _, instruction in found), text


_DRAWN: dict[str, Callable[[Random], Args]] = {
    "punctuation:no_comma": lambda rng: {},
    "change_case:english_lowercase": lambda rng: {},
    "change_case:english_capital": lambda rng: {},
    "startend:quotation": lambda rng: {},
    "startend:end_checker": lambda rng: {"end_phrase": rng.choice(END_PHRASES)},
    "detectable_format:title": lambda rng: {},
    "detectable_format:number_bullet_lists": lambda rng: {"num_bullets": rng.randint(2, 3)},
    "detectable_format:number_highlighted_sections": lambda rng: {"num_highlights": 1},
    "detectable_content:number_placeholders": lambda rng: {"num_placeholders": 1},
    "detectable_content:postscript": lambda rng: {
        "postscript_marker": rng.choice(("P.S.", "P.P.S"))
    },
    "keywords:existence": lambda rng: {
        "keywords": [rng.choice(QUALITIES), rng.choice(THINGS), rng.choice(COLOURS)][
            : rng.choice((1, 2))
        ]
    },
    "keywords:forbidden_words": lambda rng: {"forbidden_words": rng.sample(QUALITIES + ANIMALS, 2)},
    "length_constraints:number_words": lambda rng: {
        "relation": rng.choice(("less than", "at least")),
        "num_words": rng.choice((8, 10, 12)),
    },
}
SHORT_KINDS = tuple(_DRAWN)


def draw_instruction(rng: Random, kind: str = "") -> Instruction:
    """An instruction that a short answer can follow."""
    kind = kind or rng.choice(SHORT_KINDS)
    return Instruction(kind, _DRAWN[kind](rng))
