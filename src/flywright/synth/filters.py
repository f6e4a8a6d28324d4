"""What is left out of the data: copies, near copies, benchmark items, poor dialogues and pairs.

Each filter keeps the order of the records, keeps the first of copies, and tells what it dropped.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from rensa import RMinHash, RMinHashLSH  # pyright: ignore[reportAttributeAccessIssue]

from flywright.ask.protocol import Completer, Scorer
from flywright.data import dedup
from flywright.records import Comparison, Dialogue, weighted_reward
from flywright.synth.flow import Dropped
from flywright.synth.maker import Maker
from flywright.synth.settings import SynthSettings
from flywright.synth.texts import AnyText, normal, noted, text_of, tokens

Gram = tuple[str, ...]

_PERMUTATIONS, BANDS = 128, 32  # at a Jaccard of 0.5, 0.6 and 0.8, 87, 98.8 and all of 100 pairs
_SHINGLE, _STEPS = 3, (1, 2, 3, 4)


def grams(words: Sequence[str], length: int) -> set[Gram]:
    """All runs of `length` words; the whole where there are fewer."""
    last = max(len(words) - length, 0)
    return {tuple(words[i : i + length]) for i in range(last + 1)}


@dataclass(frozen=True)
class Copy:
    """A dropped record and the kept one that it repeats; `likeness` is 1.0 or a Jaccard index."""

    record: str
    of: str
    likeness: float


class Pool:
    """Texts seen so far, asked for near copies: MinHash finds candidates, exact Jaccard decides.

    With a threshold of 0 nothing is one.
    """

    def __init__(self, threshold: float, texts: Iterable[str] = ()):
        self._threshold = threshold
        self._shingles: list[set[Gram]] = []
        self._index = RMinHashLSH(threshold or 1.0, _PERMUTATIONS, BANDS)
        for text in texts:
            self.add(text)

    def _signature(self, shingles: set[Gram]) -> RMinHash:
        signature = RMinHash(_PERMUTATIONS, 1)
        signature.update([" ".join(gram) for gram in sorted(shingles)])
        return signature

    def alike(self, text: str) -> list[tuple[int, float]]:
        """(number, Jaccard) of each text at or over the threshold, in the order of their adding."""
        if not self._threshold:
            return []
        mine = grams(tokens(text), _SHINGLE)
        others = [(n, self._shingles[n]) for n in sorted(self._index.query(self._signature(mine)))]
        found = [(number, len(mine & other) / len(mine | other)) for number, other in others]
        return [(number, likeness) for number, likeness in found if likeness >= self._threshold]

    def likest(self, text: str) -> tuple[int, float] | None:
        """(number, Jaccard) of the most similar text at or over the threshold, or None."""
        return max(self.alike(text), key=lambda found: found[1], default=None)

    def add(self, text: str) -> None:
        """Remember a text; its number is how many were added before."""
        shingles = grams(tokens(text), _SHINGLE)
        self._index.insert(len(self._shingles), self._signature(shingles))
        self._shingles.append(shingles)


def _without(
    records: Sequence[AnyText], copies: dict[int, tuple[int, float]]
) -> tuple[list[AnyText], list[Copy]]:
    dropped = [Copy(records[n].id, records[of].id, like) for n, (of, like) in copies.items()]
    return [record for n, record in enumerate(records) if n not in copies], dropped


def exact(records: Iterable[AnyText]) -> tuple[list[AnyText], list[Copy]]:
    """(kept, dropped): each normalised text once."""
    records = list(records)
    keys = [_hash(normal(text_of(record))) for record in records]
    return _without(records, exact_copies(np.array(keys, dtype=np.uint64)))


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def fingerprints(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(keys [T]: equal for exact copies, bands [32, T]: near copies share some), of uint64."""
    keys = np.array([_hash(normal(text)) for text in texts], dtype=np.uint64)
    shingled = [
        np.array(sorted({_hash(" ".join(g)) for g in grams(tokens(text), _SHINGLE)}), np.uint64)
        for text in texts
    ]
    return keys, dedup.bands(shingled, BANDS, _PERMUTATIONS // BANDS)


def exact_copies(keys: np.ndarray) -> dict[int, tuple[int, float]]:
    """Place -> (the first place with its key, 1.0), of all but the first."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[inverse] < np.arange(len(keys)))
    return {int(place): (int(first[inverse[place]]), 1.0) for place in repeated}


def near_copies(
    text_at: Callable[[int], str], band_of: Callable[[int], np.ndarray], threshold: float
) -> dict[int, tuple[int, float]]:
    """Place -> (an earlier place that stays, Jaccard), where that reaches `threshold`.

    band_of(n): the n-th band of all places. Those that share one are candidates, each with the
    first there and the _STEPS before it; the exact Jaccard index of their texts decides.
    Memory: 16 bytes a place and a candidate.
    """
    shingles = functools.lru_cache(4096)(lambda place: grams(tokens(text_at(place)), _SHINGLE))
    found = np.zeros(0, dtype=np.int64)
    for band in range(BANDS):
        column = band_of(band)
        order = np.argsort(column, kind="stable")
        column = column[order]
        starts = np.maximum.accumulate(
            np.where(np.r_[True, column[1:] != column[:-1]], np.arange(len(column)), 0)
        )
        others = [starts, *(np.maximum(np.arange(len(column)) - n, starts) for n in _STEPS)]
        pairs = [order[mine] + (order << 32) for mine in others]
        found = np.unique(np.concatenate([found, *pairs]))
        found = found[found >> 32 != found & 0xFFFFFFFF]
    copies: dict[int, tuple[int, float]] = {}
    for pair in found.tolist():
        place, other = pair >> 32, pair & 0xFFFFFFFF
        other = copies[other][0] if other in copies else other
        mine, theirs = shingles(place), shingles(other)
        likeness = len(mine & theirs) / len(mine | theirs)
        if likeness >= threshold and likeness > copies.get(place, (0, 0.0))[1]:
            copies[place] = (other, likeness)
    return copies


def near(records: Iterable[AnyText], threshold: float) -> tuple[list[AnyText], list[Copy]]:
    """(kept, dropped): no kept text has a Jaccard index of `threshold` with one before it."""
    records = list(records)
    if not threshold or not records:
        return records, []
    texts = [text_of(record) for record in records]
    copies = near_copies(texts.__getitem__, fingerprints(texts)[1].__getitem__, threshold)
    return _without(records, copies)


async def by_reward(
    maker: Maker, dialogues: Sequence[Dialogue], scorer: Scorer, threshold: float
) -> list[Dialogue]:
    """The dialogues whose weighted reward reaches `threshold`, with their scores in the lineage."""

    async def step(dialogue: Dialogue, _ask: Completer) -> list[Dialogue]:
        attributes = await scorer.score(dialogue.conversation)
        reward = weighted_reward(attributes)
        if reward < threshold:
            raise Dropped("reward below the threshold")
        name = f"reward>={threshold:g} by {scorer.model}"
        lineage = noted(dialogue.lineage, name, **attributes, reward=reward)
        return [dialogue.model_copy(update={"lineage": lineage})]

    return await maker.run("reward filter", step, dialogues)


def chosen_quality(
    pairs: Iterable[Comparison], threshold: float
) -> tuple[list[Comparison], dict[str, int]]:
    """(kept, counts): pairs whose chosen answer's reward reaches `threshold` (HOUSE 8).

    Pairs that the ground truth decided are exempt; a pair without rewards is dropped.
    counts: in, out, exempt, dropped.
    """
    kept, exempt, total = [], 0, 0
    for pair in pairs:
        total += 1
        if pair.judge == "truth":
            exempt += 1
            kept.append(pair)
        elif pair.chosen_reward is not None and pair.chosen_reward >= threshold:
            lineage = noted(pair.lineage, f"chosen>={threshold:g}")
            kept.append(pair.model_copy(update={"lineage": lineage}))
    counts = {"in": total, "out": len(kept), "exempt": exempt, "dropped": total - len(kept)}
    return kept, counts


def preference_sets(
    pairs: Sequence[Comparison], settings: SynthSettings
) -> tuple[list[Comparison], list[Comparison], dict[str, dict[str, int]]]:
    """(for DPO, for RPO, counts of both): the two thresholds of the chosen-quality filter."""
    dpo, dpo_counts = chosen_quality(pairs, settings.dpo_quality)
    rpo, rpo_counts = chosen_quality(pairs, settings.rpo_quality)
    return dpo, rpo, {"dpo": dpo_counts, "rpo": rpo_counts}
