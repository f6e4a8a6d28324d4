"""Heuristic quality rules, as Gopher's and C4's: a rule that is true of a text names why it goes.

Sources: Rae et al. 2022, appendix A1; Raffel et al. 2020, section 2.2; code: Chen et al. 2021, Li
et al. 2023. What several rules look at is computed once a text, in arrays over its units: words, or
characters in scripts that do not part words, where two count as a word.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import cache, cached_property

import numpy as np
from pydantic import Field

from flywright.settings import Settings

UNSPACED = frozenset(("zh", "ja", "th", "lo", "my", "km", "bo", "yue"))
# Thai to Myanmar, Khmer, and from the Chinese radicals on all but the Korean syllables
_UNSPACED_SCRIPTS = ((0xE00, 0x109F), (0x1780, 0x17FF), (0x2E80, 0xABFF), (0xD800, 0x10FFFF))
_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLET, _DOTS = re.compile("[-*•‣▪●○◦·–]"), re.compile(r"(\.\.\.|…)$")
_SCRIPT = re.compile("javascript", re.IGNORECASE)
_CLOSED = r"""[.!?…。！？؟۔।။។།]["'”’»）)\]」』]*"""
_ENDS, _END = re.compile(_CLOSED + r"(?=\s|$|[^\x00-\u2fff])"), re.compile(_CLOSED + "$")
_LOOKED_AT = 1 << 18  # characters: what a text repeats is looked for in so many of its first


class Quality(Settings):
    """The rules' thresholds: the papers', where nothing else is said."""

    words: tuple[int, int] = (50, 100_000)
    word_length: tuple[float, float] = (3, 10)
    symbols: float = Field(default=0.1, description="# and ellipses, a word")
    bullets: float = Field(default=0.9, description="share of lines that begin with one")
    ellipses: float = Field(default=0.3, description="share of lines that end with one")
    letters: float = Field(default=0.8, description="share of words that have one")
    stop_words: int = Field(default=2, description="of eight, in English")
    duplicates: float = Field(default=0.3, description="share of lines, and of paragraphs")
    duplicate_characters: float = Field(default=0.2, description="share of characters in them")
    top_grams: tuple[float, ...] = Field(default=(0.2, 0.18, 0.16), description="of words: 2, 3, 4")
    repeated_grams: tuple[float, ...] = Field(
        default=(0.15, 0.14, 0.13, 0.12, 0.11, 0.1),
        description="share of characters in 5- to 10-grams",
    )
    sentences: int = 3
    ended_lines: float = Field(default=0.12, description="least share; ours: C4 deletes the others")
    javascript: float = Field(default=0.1, description="share of lines; ours: C4 deletes them")
    code_line: tuple[float, int] = Field(
        default=(100, 1000), description="characters: mean, longest"
    )
    code_letters: float = Field(default=0.25, description="share of characters, with digits")
    unequal: float = Field(default=4, description="a pair's longer text over its shorter; ours")


@cache
def _letters() -> np.ndarray:
    """Whether a code point is a letter or a mark on one; the last is for all that lie beyond."""
    kinds = (unicodedata.category(chr(point))[0] in "LM" for point in range(1 << 17))
    return np.fromiter((*kinds, True), dtype=bool)


@cache
def _powers() -> list[np.ndarray]:
    """The powers of a hash's base modulo 2^64, and of its inverse."""
    base = 0x9E3779B97F4A7C15
    steps = np.full((2, _LOOKED_AT + 1), [[base], [pow(base, -1, 1 << 64)]], dtype=np.uint64)
    steps[:, 0] = 1
    return list(np.multiply.accumulate(steps, axis=1))


class Features:
    """What rules and copies are judged by, each computed when it is first asked for."""

    def __init__(self, text: str, language: str, sides: tuple[str, ...] = ()):
        self.text, self.sides = text, sides
        self.language = language.partition("-")[0]
        self.spaced = self.language not in UNSPACED
        self.scale = 1 if self.spaced else 2  # units a word
        self.marked = self.language not in ("th", "lo")  # where a sentence ends

    @cached_property
    def split(self) -> list[str]:
        """The lower-case text, cut at white space."""
        return self.text.lower().split()

    @cached_property
    def normal(self) -> str:
        return " ".join(self.split)

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank, without the spaces around them."""
        return [line for raw in self.text.split("\n") if (line := raw.strip())]

    @property
    def sentences(self) -> int:
        return len(_ENDS.findall(self.text))

    def share(self, test: Callable[[str], object]) -> float:
        """Share of lines for which `test` is true."""
        return sum(map(bool, map(test, self.lines))) / len(self.lines)

    @cached_property
    def _points(self) -> np.ndarray:
        head = self.normal[:_LOOKED_AT]
        if head.isascii():
            return np.frombuffer(head.encode(), dtype=np.uint8)
        return np.frombuffer(head.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)

    @cached_property
    def _spans(self) -> tuple[np.ndarray, np.ndarray]:
        """Where units begin and end."""
        points, size = self._points, len(self._points)
        inside = points != ord(" ")
        apart = ~inside
        if size and points.max() >= _UNSPACED_SCRIPTS[0][0]:
            for first, last in _UNSPACED_SCRIPTS:
                apart |= (points >= first) & (points <= last)
        edges = np.ones(size + 1, dtype=bool)
        edges[1:size] = apart[:-1] | apart[1:]
        return np.flatnonzero(edges[:size] & inside), np.flatnonzero(edges[1:] & inside) + 1

    @property
    def units(self) -> int:
        return len(self._spans[0])

    @cached_property
    def words(self) -> float:
        """How many there are, or would be if they were written apart."""
        return len(self.split) if self.spaced else self.units / self.scale

    @cached_property
    def with_letter(self) -> float:
        letters = _letters()[np.minimum(self._points, np.uint32(1 << 17))]
        return float(np.logical_or.reduceat(letters, self._spans[0]).mean())

    @cached_property
    def _sums(self) -> np.ndarray:
        """Sums of a polynomial in the code points: the hash of a span is a difference of two."""
        sums = np.zeros(len(self._points) + 1, dtype=np.uint64)
        np.cumsum(self._points * _powers()[0][: len(self._points)], out=sums[1:])
        return sums

    def grams(self, words: int) -> tuple[np.ndarray, np.ndarray]:
        """Hash and length of each run of so many words; of the whole where there are fewer."""
        length = min(words * self.scale, self.units)
        starts, ends = self._spans[0][: self.units - length + 1], self._spans[1][length - 1 :]
        return (self._sums[ends] - self._sums[starts]) * _powers()[1][starts], ends - starts

    def top(self, words: int, least: float) -> float:
        """The largest share of characters that one repeated n-gram has, where over `least`."""
        keys, sizes = self.grams(words)
        ordered, total = np.sort(keys), len(self._points)
        edges = np.flatnonzero(ordered[1:] != ordered[:-1])
        most = np.diff(edges, prepend=-1, append=len(keys) - 1).max()
        if most < 2 or most * sizes.max() <= least * total:
            return 0.0  # the common case, found without looking which n-gram it is
        _, first, counts = np.unique(keys, return_index=True, return_counts=True)
        return float((counts * sizes[first] * (counts > 1)).max() / total)

    def repeated(self, words: int) -> float:
        """Share of characters in n-grams that occurred before, each character counted once."""
        keys, _ = self.grams(words)
        order = np.argsort(keys, kind="stable")
        again = order[1:][keys[order[1:]] == keys[order[:-1]]]
        depth = np.zeros(self.units + 1, dtype=np.int64)
        np.add.at(depth, again, 1)
        np.add.at(depth, again + words * self.scale, -1)
        sizes = self._spans[1] - self._spans[0]
        return float(sizes[depth[:-1].cumsum() > 0].sum() / sizes.sum())


Rule = Callable[[Features, Quality], bool]


def word_length(text: Features, limits: Quality) -> bool:
    """The mean; half as few characters are enough where one is a syllable (Korean)."""
    mean = (len(text.normal) + 1) / len(text.split) - 1
    least = limits.word_length[0] / (2 if text.language == "ko" else 1)
    return text.spaced and not least <= mean <= limits.word_length[1]


def duplicates(parts: list[str], limits: Quality) -> bool:
    """Too many lines or paragraphs occurred before, or too many characters are in those."""
    distinct = set(parts)
    again, characters = len(parts) - len(distinct), sum(map(len, parts))
    most = limits.duplicate_characters * characters
    return again > limits.duplicates * len(parts) or characters - sum(map(len, distinct)) > most


def repeated_phrases(text: Features, limits: Quality) -> bool:
    """What a longer n-gram holds a shorter one holds too: most texts need a look at one length."""
    for n, most in enumerate(limits.repeated_grams, start=5):
        share = text.repeated(n) if text.units > n * text.scale else 0.0
        if share > most or share <= min(limits.repeated_grams):
            return share > most
    return False


def long_lines(text: Features, limits: Quality) -> bool:
    """Lines that nobody typed."""
    sizes, (mean, longest) = [len(line) for line in text.lines], limits.code_line
    return max(sizes) > longest or sum(sizes) > mean * len(sizes)


_GOPHER: dict[str, Rule] = {
    "too few words": lambda text, limits: text.words < limits.words[0],
    "too many words": lambda text, limits: text.words > limits.words[1],
    "word length": word_length,
    "symbols": lambda text, limits: (
        sum(map(text.text.count, ("#", "...", "…"))) > limits.symbols * text.words
    ),
    "bullets": lambda text, limits: text.share(_BULLET.match) > limits.bullets,
    "ellipses": lambda text, limits: text.share(_DOTS.search) > limits.ellipses,
    "no stop words": lambda text, limits: (
        text.language == "en" and len(_STOP_WORDS.intersection(text.split)) < limits.stop_words
    ),
    "few letters": lambda text, limits: (  # of characters by themselves three quarters as many
        text.with_letter < limits.letters * (1 if text.spaced else 0.75)
    ),
    "duplicate lines": lambda text, limits: duplicates(text.lines, limits),
    "duplicate paragraphs": lambda text, limits: duplicates(
        re.split(r"\n\s*\n", text.text.strip()), limits
    ),
    "one phrase": lambda text, limits: any(
        text.top(n, most) > most for n, most in enumerate(limits.top_grams, start=2)
    ),
    "repeated phrases": repeated_phrases,
}
_C4: dict[str, Rule] = {
    "lorem ipsum": lambda text, limits: "lorem ipsum" in text.normal,
    "curly brace": lambda text, limits: "{" in text.text,
    "javascript": lambda text, limits: text.share(_SCRIPT.search) > limits.javascript,
    "few sentences": lambda text, limits: text.marked and text.sentences < limits.sentences,
    "unended lines": lambda text, limits: (
        text.marked and text.share(_END.search) < limits.ended_lines
    ),
}
RULES: dict[str, dict[str, Rule]] = {
    "web": _C4 | _GOPHER,
    "prose": _GOPHER,
    "code": {
        "long lines": long_lines,
        "few letters": lambda text, limits: (
            sum(map(str.isalnum, text.text)) < limits.code_letters * len(text.text)
        ),
    },
    "pairs": {
        "not translated": lambda text, limits: not text.sides[0] or text.sides[0] == text.sides[1],
        "unequal sides": lambda text, limits: (  # short texts may differ by 20 characters
            max(map(len, text.sides)) > limits.unequal * min(map(len, text.sides)) + 20
        ),
    },
    "none": {},
}


def reason(text: Features, rules: str, limits: Quality) -> str | None:
    """The first rule of its kind that is true of a text; a text without words is "empty"."""
    found = (name for name, rule in RULES[rules].items() if rule(text, limits))
    return next(found, None) if text.split else "empty"
