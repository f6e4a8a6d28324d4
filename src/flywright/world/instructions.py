"""Verifiable instructions (SPEC 10.6): how they are worded, read from a text, drawn, and obeyed.

Reading goes by the wordings of instructions.toml; the pipeline's own template file has the same; a
test compares the two.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from flywright.records import Check
from flywright.world.obey import OBEY
from flywright.world.words import ANIMALS, COLOURS, QUALITIES, THINGS, table

Args = dict[str, Any]

_TEXTS = table("instructions")
WORDINGS: dict[str, str] = _TEXTS["wordings"]
SHORT_WORDINGS: dict[str, str] = _TEXTS["short"]
SHORT_KINDS: tuple[str, ...] = tuple(_TEXTS["drawn"])
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

    def check(self) -> Check:
        """The instruction as a check."""
        return Check(kind=self.kind, args=self.args)

    def obey(self, answer: str) -> str:
        """The answer changed so that it follows the instruction."""
        return OBEY[self.kind](answer, self.args)


def _pattern(wording: str) -> re.Pattern[str]:
    def group(match: re.Match[str]) -> str:
        name = match.group(1)
        fallback = r"\d+" if name.startswith(("num_", "nth_")) or "frequency" in name else r"\S+?"
        return f"(?P<{name}>{_TEXTS['fields'].get(name, fallback)})"

    return re.compile(re.sub(r"\\\{(\w+)\\\}", group, re.escape(wording)))


_PATTERNS = [
    (kind, _pattern(wording))
    for table in (WORDINGS, SHORT_WORDINGS)
    for kind, wording in table.items()
    if kind in OBEY
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


_MARKERS = ("P.S.", "P.P.S")
_DRAWN: dict[str, Callable[[Random], Args]] = {
    "startend:end_checker": lambda rng: {"end_phrase": rng.choice(END_PHRASES)},
    "detectable_format:number_bullet_lists": lambda rng: {"num_bullets": rng.randint(2, 3)},
    "detectable_format:number_highlighted_sections": lambda rng: {"num_highlights": 1},
    "detectable_content:number_placeholders": lambda rng: {"num_placeholders": 1},
    "detectable_content:postscript": lambda rng: {"postscript_marker": rng.choice(_MARKERS)},
    "keywords:existence": lambda rng: {"keywords": _keywords(rng)},
    "keywords:forbidden_words": lambda rng: {"forbidden_words": rng.sample(QUALITIES + ANIMALS, 2)},
    "length_constraints:number_words": lambda rng: {
        "relation": rng.choice(("less than", "at least")),
        "num_words": rng.choice((8, 10, 12)),
    },
}


def _keywords(rng: Random) -> list[str]:
    words = [rng.choice(QUALITIES), rng.choice(THINGS), rng.choice(COLOURS)]
    return words[: rng.choice((1, 2))]


def draw_instruction(rng: Random, kind: str = "") -> Instruction:
    """An instruction that a short answer can follow."""
    kind = kind or rng.choice(SHORT_KINDS)
    return Instruction(kind, _DRAWN[kind](rng) if kind in _DRAWN else {})
