"""Benchmark items in the data: copied, reworded, or translated, each by what survives it.

words        runs of eight words: what was copied (SPEC 7)
rewording    the rare words' stems, and the same numbers: what was said otherwise in one language
translation  numbers in their order, and names: what was said in another, where there are enough
embedding    cosine of an embedder's vectors, if one is handed in

A method is sure of a hit, or suspects it: what is suspected stays, and is told, unless a model that
is asked says that both texts are the same problem. `coverage` counts what cannot be checked.
"""

import math
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from flywright.ask.limits import gather
from flywright.ask.protocol import Completer, Sampling
from flywright.synth.embeddings import Embedder
from flywright.synth.texts import AnyText, segments_of, tokens
from flywright.synth.wording import template

METHODS = ("words", "rewording", "translation")
LEAST_TOKENS = 3  # a shorter text would hit everything
WINDOW = 80  # words of a long text that are compared at once
COMMON, FEW = 0.02, 20  # a stem in more of the items, and in more than so many, says nothing
NUMBERS_AGREE = 0.8  # share of the numbers' weight that both have, for a sure hit
# score that is suspected, and that is sure: chosen on the tuning half of real items, measured on
# the other (tests/synth/test_synth_decontaminate.py); the embedder's, on nothing
BOUNDS = {"rewording": (0.45, 0.55), "translation": (0.7, 0.9), "embedding": (0.8, 0.9)}
SURPRISE = (9.0, 15.5)  # nats of the numbers, their order and the names shared: the same two
CANDIDATES = 10  # items that share most are looked at closely

_NUMBER = r"\d+(?:[.,' \u00a0\u202f]\d{3})+(?!\d)|\d+(?:[.,]\d+)?"
_SPOKEN = re.compile(
    rf"(?<![A-Za-z_\d])(?:{_NUMBER})|[一二三四五六七八九十两]|[^\W\d_]+(?:[-'’][^\W\d_]+)*"
)
_THOUSANDS = re.compile(r"[.,' \u00a0\u202f](?=\d{3}(?!\d))")
_NAME = re.compile(r"\w{4,}")
_IDENTIFIER = re.compile(r"[A-Za-z]{2,}\w*_\w{2,}")  # survives rewording and translation
IDENTIFIER_NATS = 9.0
_POWERS = np.cumprod(np.full(64, 0x9E3779B97F4A7C15, dtype=np.uint64))


@dataclass(frozen=True)
class Hit:
    """A record that repeats a benchmark item: how much of it, and words of both to read."""

    record: str
    benchmark: str
    item: str
    share: float
    words: str
    method: str = "words"
    sure: bool = True
    text: str = ""


@cache
def _number_words() -> dict[str, str]:
    table = tomllib.loads((Path(__file__).parent / "number_words.toml").read_text("utf-8"))
    counted = {w: str(n) for line in table["count"].values() for n, w in enumerate(line.split())}
    return counted | {w: n for n, line in table["more"].items() for w in line.split()}


def numbers(text: str) -> list[tuple[str, bool]]:
    """The numbers of a text in order, as (plain decimal, written in digits?)."""
    found, called = [], _number_words()
    for match in _SPOKEN.finditer(text):
        said = match.group()
        if said[0].isdecimal():  # ² is a digit, and no decimal
            whole, _, rest = _THOUSANDS.sub("", said).replace(",", ".").partition(".")
            rest = rest.rstrip("0")
            found.append((f"{int(whole)}.{rest}" if rest else str(int(whole)), True))
        elif number := called.get(said.casefold()):
            found.append((number, False))
    return found


def surprise(number: str) -> float:
    """Nats that a number tells: small and round ones are met anywhere."""
    if "." in number:
        return math.log(10) * (len(number) - 1)
    plain = number.rstrip("0")
    return math.log(2 + int(plain[:18] or 0)) + 0.7 * (len(number) - len(plain))


def _names(text: str) -> set[str]:
    """Identifiers, and the beginnings of capitalised words."""
    capitalised = {w.casefold()[:5] for w in _NAME.findall(text) if w[0].isupper()}
    return capitalised | set(_IDENTIFIER.findall(text))


def _stems(words: Iterable[str]) -> set[str]:
    return {word[:6] for word in words if word[0].isalnum()}


def _in_order(mine: Sequence[str], theirs: Sequence[str]) -> tuple[float, int]:
    """(surprise, count) of the weightiest common subsequence."""
    above = [(0.0, 0)] * (len(theirs) + 1)
    for number in mine:
        row = [(0.0, 0)]
        for place, other in enumerate(theirs):
            best = max(above[place + 1], row[place])
            if number == other:
                weight, count = above[place]
                best = max(best, (weight + surprise(number), count + 1))
            row.append(best)
        above = row
    return above[-1]


def agreement(mine: list[tuple[str, bool]], theirs: list[tuple[str, bool]]) -> tuple[float, float]:
    """(share of the numbers' weight that both have, surprise of those in the same order).

    What only one side writes in digits counts against it; words may be no numbers ("one").
    """
    sides = [[number for number, _ in side] for side in (mine, theirs)]
    counts = [Counter(side) for side in sides]
    missed = 0.0
    for side, other in ((mine, counts[1]), (theirs, counts[0])):
        alone = Counter(number for number, digits in side if digits) - other
        missed += sum(map(surprise, alone.elements()))
    most = sum(map(surprise, (counts[0] & counts[1]).elements()))
    if most < BOUNDS["translation"][0] * (most + missed):
        return most / (most + missed), 0.0  # whatever their order
    weight, count = _in_order(*sides)
    share = weight / (weight + missed) if weight + missed else 1.0
    return share, weight + math.lgamma(count + 1)


def _views(segment: str) -> Iterator[str]:
    """The segment, and windows that overlap by half where it is long."""
    yield segment
    words = segment.split()
    if len(words) > 1.5 * WINDOW:
        for start in range(0, len(words) - WINDOW // 2, WINDOW // 2):
            yield " ".join(words[start : start + WINDOW])


class _Postings:
    """Which items have a feature; features are numbers from one vocabulary, or hashes."""

    def __init__(self, features: Sequence[np.ndarray]):
        owners = np.repeat(np.arange(len(features)), [len(found) for found in features])
        flat = np.concatenate([*features, np.zeros(0, dtype=np.uint64)])
        order = np.argsort(flat, kind="stable")
        self.keys, self.owners = flat[order], owners[order].astype(np.int32)

    def found(self, keys: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(items that share any, the weights of what each shares)."""
        low = np.searchsorted(self.keys, keys, "left")
        counts = np.searchsorted(self.keys, keys, "right") - low
        starts = np.repeat(low - (np.cumsum(counts) - counts), counts)
        owners = self.owners[starts + np.arange(counts.sum())]
        items, inverse = np.unique(owners, return_inverse=True)
        return items, np.bincount(inverse, np.repeat(weights, counts), len(items))


@dataclass(frozen=True)
class Found:
    """An item that a text repeats, by one method."""

    item: int
    share: float
    sure: bool
    words: str


class Copied:
    """Runs of words; `checked` tells of each item whether this method can find it."""

    def __init__(self, texts: Sequence[str], words: int, share: float):
        split = [tokens(text) for text in texts]
        self._ids = {w: n for n, w in enumerate(sorted({w for one in split for w in one}), 1)}
        self._share, self.checked = share, [len(one) >= LEAST_TOKENS for one in split]
        lengths = [min(words, len(one)) for one in split]
        self._lengths = sorted({n for n, can in zip(lengths, self.checked, strict=True) if can})
        runs = [
            np.unique(self._runs(one, length)[0]) if can else np.zeros(0, dtype=np.uint64)
            for one, length, can in zip(split, lengths, self.checked, strict=True)
        ]
        self._sizes, self._index = np.array([len(found) for found in runs]), _Postings(runs)

    def _runs(self, words: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        """(hashes, places) of the runs of words that are all known."""
        ids = np.array([self._ids.get(word, 0) for word in words], dtype=np.uint64)
        if len(ids) < length:
            return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
        runs = np.lib.stride_tricks.sliding_window_view(ids, length)
        places = np.flatnonzero(runs.all(axis=1))
        return (runs[places] * _POWERS[:length]).sum(axis=1, dtype=np.uint64), places

    def find(self, segments: Sequence[str]) -> Found | None:
        """The item of which `share` or more stands in the segments, the most of it first."""
        words = tokens("\n".join(segments))
        runs = [(length, *self._runs(words, length)) for length in self._lengths]
        keys = np.unique(np.concatenate([found for _, found, _ in runs]))
        items, counts = self._index.found(keys, np.ones(len(keys)))
        if not len(items) or (shares := counts / self._sizes[items]).max() < self._share:
            return None
        item = int(items[shares.argmax()])
        of_it = self._index.keys[self._index.owners == item]
        for length, found, places in runs:
            for place in places[np.isin(found, of_it)]:
                shown = " ".join(words[place : place + length])
                return Found(item, float(shares.max()), True, shown)
        return None


class Reworded:
    """Cosine of the stems, the rarer the heavier; sure only where numbers and identifiers agree."""

    def __init__(self, texts: Sequence[str]):
        stems = [_stems(tokens(text)) for text in texts]
        often = Counter(stem for found in stems for stem in found)
        most = max(FEW, COMMON * len(texts))
        rare = sorted(stem for stem, count in often.items() if count <= most)
        self._often = often.keys() - set(rare)
        self._ids = {stem: number for number, stem in enumerate(rare)}
        self._new = math.log(len(texts) + 1) ** 2
        weights = [math.log((len(texts) + 1) / (often[stem] + 0.5)) ** 2 for stem in rare]
        self._weights = np.array(weights)
        keys = [self._keys(found) for found in stems]
        self._norms = np.sqrt([self._weights[found].sum() for found in keys])
        self._index, self._numbers = _Postings(keys), [numbers(text) for text in texts]
        self._called = [set(_IDENTIFIER.findall(text)) for text in texts]
        self.checked = [len(found) >= LEAST_TOKENS for found in keys]

    def _keys(self, stems: set[str]) -> np.ndarray:
        return np.array(sorted(self._ids[s] for s in stems if s in self._ids), dtype=np.uint64)

    def _score(self, view: str) -> tuple[int, float] | None:
        stems = _stems(tokens(view))
        keys = self._keys(stems)
        if len(keys) < LEAST_TOKENS:
            return None
        weights = self._weights[keys]
        norm = math.sqrt(weights.sum() + self._new * len(stems - self._often - self._ids.keys()))
        items, shared = self._index.found(keys, weights)
        scores = shared / (norm * self._norms[items])
        best = int(scores.argmax())
        return int(items[best]), float(scores[best])

    def find(self, segments: Sequence[str]) -> Found | None:
        """The likest item of any segment or window, if it is suspected at least."""
        low, high = BOUNDS["rewording"]
        found = [(s, view) for one in segments for view in _views(one) if (s := self._score(view))]
        if not found or (best := max(found, key=lambda pair: pair[0][1]))[0][1] < low:
            return None
        (item, score), view = best
        agree, _ = agreement(numbers(view), self._numbers[item])
        same = agree >= NUMBERS_AGREE and self._called[item] <= set(_IDENTIFIER.findall(view))
        return Found(item, score, score >= high and same, view)


class Translated:
    """Numbers in their order, and names; scripts that write names otherwise leave the numbers."""

    def __init__(self, texts: Sequence[str]):
        self._numbers = [numbers(text) for text in texts]
        named = [_names(text) for text in texts]
        often = Counter(name for found in named for name in found)
        most = max(FEW, COMMON * len(texts))
        self._names = [{name for name in found if often[name] <= most} for found in named]
        self._worth = {
            n: IDENTIFIER_NATS if "_" in n else min(6.0, math.log(len(texts) / often[n]))
            for n in often
        }
        features = [
            {*(n for n, _ in mine if surprise(n) > math.log(4)), *names}
            for mine, names in zip(self._numbers, self._names, strict=True)
        ]
        self._ids = {f: n for n, f in enumerate(sorted({f for one in features for f in one}))}
        self._index = _Postings([self._keys(found) for found in features])
        self.checked = [
            agreement(mine, mine)[1] + self._worth_of(names) >= SURPRISE[0]
            for mine, names in zip(self._numbers, self._names, strict=True)
        ]

    def _worth_of(self, names: set[str]) -> float:
        """Nats; capitalised words alone, as pages have them by the dozen, make no sure hit."""
        called = sum(self._worth[name] for name in names if "_" in name)
        plain = sum(self._worth[name] for name in names if "_" not in name)
        return called + min(plain, SURPRISE[0])

    def _keys(self, features: Iterable[str]) -> np.ndarray:
        return np.array(sorted({self._ids[f] for f in features if f in self._ids}), dtype=np.uint64)

    def _score(self, view: str) -> tuple[float, float, int] | None:
        mine, names = numbers(view), _names(view)
        keys = [name for name in {*(n for n, _ in mine), *names} if name in self._ids]
        if not keys:
            return None
        worth = {self._ids[key]: self._worth.get(key) or surprise(key) for key in keys}
        known = np.array(sorted(worth), dtype=np.uint64)
        items, shared = self._index.found(known, np.array([worth[int(key)] for key in known]))
        best = None
        order = math.lgamma(len(mine) + 1)
        for place in np.argsort(-shared, kind="stable")[:CANDIDATES]:
            if shared[place] * 2 + order < SURPRISE[0]:  # a number may stand there twice
                break
            item = items[place]
            share, nats = agreement(mine, self._numbers[item])
            nats += self._worth_of(self._names[item] & names)
            scored = (share, nats, int(item))
            if nats >= SURPRISE[0] and (best is None or _rank(scored) > _rank(best)):
                best = scored
        return best

    def find(self, segments: Sequence[str]) -> Found | None:
        """The item whose numbers and names are in a segment or window, if suspected at least."""
        low, high = BOUNDS["translation"]
        found = [(s, view) for one in segments for view in _views(one) if (s := self._score(view))]
        if not found or (best := max(found, key=lambda pair: _rank(pair[0])))[0][0] < low:
            return None
        (share, nats, item), view = best
        return Found(item, share, share >= high and nats >= SURPRISE[1], view)


def _rank(scored: tuple[float, float, int]) -> float:
    return scored[0] * min(1.0, scored[1] / SURPRISE[1])


class Embedded:
    """Cosine of an embedder's vectors."""

    def __init__(self, texts: Sequence[str], embedder: Embedder):
        self._embedder, self._rows = embedder, embedder.embed(texts)
        self.checked = [bool(row.any()) for row in self._rows]

    def find(self, segments: Sequence[str]) -> Found | None:
        """The likest item of any segment or window, if it is suspected at least."""
        low, high = BOUNDS["embedding"]
        views = [view for one in segments for view in _views(one)]
        scores = self._embedder.embed(views) @ self._rows.T
        view, item = np.unravel_index(scores.argmax(), scores.shape)
        best = float(scores[view, item])
        return Found(int(item), best, best >= high, views[view]) if best >= low else None


class Benchmarks:
    """All items of (benchmark, text) pairs, asked which of them a text repeats.

    A run is `words` words or operators, or the whole text where it is shorter; `share` is of an
    item's runs, 0 = nothing is found. coverage: benchmark -> {"items", and how many of them each
    method can check}.
    """

    def __init__(
        self,
        texts: Iterable[tuple[str, str]],
        words: int = 8,
        share: float = 0.5,
        methods: Sequence[str] = METHODS,
        embedder: Embedder | None = None,
    ):
        self.items = list(texts) if share else []
        plain = [text for _, text in self.items]
        made = {
            "words": lambda: Copied(plain, words, share),
            "rewording": lambda: Reworded(plain),
            "translation": lambda: Translated(plain),
        }
        self.methods = {name: made[name]() for name in methods} if plain else {}
        if embedder and plain:
            self.methods["embedding"] = Embedded(plain, embedder)
        self.coverage: dict[str, Counter[str]] = defaultdict(Counter)
        for number, (name, _) in enumerate(self.items):
            self.coverage[name]["items"] += 1
            for method, index in self.methods.items():
                self.coverage[name][method] += bool(index.checked[number])

    def hits(self, record: str, segments: Sequence[str]) -> list[Hit]:
        """The best hit of each method; no more methods are asked once one is sure."""
        hits = []
        for method, index in self.methods.items():
            if found := index.find(segments):
                item, text = self.items[found.item], found.words
                if method == "words":
                    of_it = set(tokens(item[1]))
                    text = max(segments, key=lambda one: len(of_it & set(tokens(one))))
                words = found.words if method == "words" else ""
                told = (found.share, words, method, found.sure, text)
                hits.append(Hit(record, item[0], item[1], *told))
                if found.sure:
                    break
        return hits


def decontaminate(
    records: Iterable[AnyText], benchmarks: Benchmarks
) -> tuple[list[AnyText], list[Hit]]:
    """(kept, hits): without the records that surely repeat an item; suspects stay, and are told."""
    kept, hits = [], []
    for record in records:
        found = benchmarks.hits(record.id, segments_of(record))
        hits += found
        if not any(hit.sure for hit in found):
            kept.append(record)
    return kept, hits


async def confirmed(ask: Completer, suspects: Sequence[Hit]) -> list[Hit]:
    """The suspects, sure where the model says in either order that both are the same problem."""

    async def check(hit: Hit) -> Hit:
        pairs = ((hit.item, hit.text), (hit.text, hit.item))
        asked = [template("same_problem").fill(first=one, second=other) for one, other in pairs]
        said = [(await ask.complete(each, Sampling(max_tokens=8))).text for each in asked]
        same = any(text.strip().lower().startswith("yes") for text in said)
        return replace(hit, sure=same, method=f"{hit.method}, asked {ask.model}")

    return await gather(check, suspects)
