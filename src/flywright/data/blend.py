"""A blend of token shards, cut into windows: exact shares, seekable, each window once an epoch.

Sample i of the run lies in a block of BLOCK samples, or of so many more that the smallest source
has two of them; in every block each source has its exact share, in an order drawn for that block.
Within a source, windows come in an order drawn for each epoch.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flywright.data.batch import Sample
from flywright.errors import UserError
from flywright.files import seed_from

BLOCK = 200


def block_counts(weights: Mapping[str, float], block: int = BLOCK) -> dict[str, int]:
    """How many samples of a block each source gives: largest remainders, summing to `block`."""
    total = sum(weights.values())
    exact = {name: weight / total * block for name, weight in weights.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (counts[name] - exact[name], name))
    for name in by_remainder[: block - sum(counts.values())]:
        counts[name] += 1
    return counts


Blends = Sequence[tuple[int, Mapping[str, float]]]


@dataclass(frozen=True)
class _Phase:
    """From a sample on: samples of each source in a block of so many, and in all before `start`."""

    start: int
    size: int
    counts: dict[str, int]
    before: dict[str, int]


class BlendedWindows:
    """A Loader of language-model windows of `window` tokens from several shards.

    Windows of a shard overlap by one token, so that each token is predicted once an epoch.
    blends: (from which sample on, weight of each shard), in order, the first from 0. Raises
    UserError for an unknown shard, one without a window, or weights that are no shares.
    """

    def __init__(self, shards: Mapping[str, np.ndarray], blends: Blends, window: int, seed: int):
        named = {name for _, weights in blends for name in weights}
        unknown = named - set(shards)
        if unknown:
            known = ", ".join(shards)
            raise UserError(f"blend: no source {sorted(unknown)[0]!r}; there are: {known}")
        for _, weights in blends:
            if min(weights.values(), default=0) < 0 or not sum(weights.values()):
                raise UserError(f"blend: {dict(weights)}: no share may be negative, nor all 0")
        if window < 2:
            raise UserError(f"blend: a window of {window} tokens predicts nothing")
        starts = [start for start, _ in blends]
        if starts != sorted(set(starts)) or starts[0] != 0:
            raise UserError(f"blend: the samples from which blends hold are {starts}: not in order")
        self._shards = {name: shards[name] for name in sorted(named)}
        self._window = window
        self._seed = seed
        self._windows = {n: (len(s) - 1) // (window - 1) for n, s in self._shards.items()}
        for name, count in self._windows.items():
            if count < 1:
                raise UserError(f"blend: source {name!r} is shorter than one window of {window}")
        self._orders: dict[tuple[str, int], np.ndarray] = {}
        self._latest: tuple[Any, Any] = None, None
        self._phases: list[_Phase] = []
        for start, weights in blends:
            self._phases.append(self._phase(start, weights))
        self._mask = np.ones(window, dtype=bool)
        self._mask[0] = False

    def __len__(self) -> int:
        return sum(self._windows.values())

    def _phase(self, start: int, weights: Mapping[str, float]) -> _Phase:
        every = {name: weights.get(name, 0.0) for name in self._shards}
        least = min(share for share in every.values() if share) / sum(every.values())
        size = BLOCK * math.ceil(2 / (least * BLOCK))
        counts, before = block_counts(every, size), dict.fromkeys(every, 0)
        if self._phases:  # whole blocks of the phase before this one, and what it began
            last = self._phases[-1]
            blocks, rest = divmod(start - last.start, last.size)
            begun = Counter(self._drawn(last, blocks)[:rest].tolist())
            for place, name in enumerate(every):
                before[name] = last.before[name] + blocks * last.counts[name] + begun[place]
        return _Phase(start, size, counts, before)

    def _drawn(self, phase: _Phase, block: int) -> np.ndarray:
        """Which source each sample of a phase's block is from."""
        key = (phase.start, block)
        if self._latest[0] != key:
            labels = np.repeat(np.arange(len(phase.counts)), list(phase.counts.values()))
            named = ("block", block) if phase.start == 0 else ("block", phase.start, block)
            generator = np.random.default_rng(seed_from(self._seed, *named))
            self._latest = key, generator.permutation(labels)
        return self._latest[1]

    def place(self, number: int) -> tuple[str, int]:
        phase = next(phase for phase in reversed(self._phases) if phase.start <= number)
        block, within = divmod(number - phase.start, phase.size)
        labels = self._drawn(phase, block)
        source = list(phase.counts)[labels[within]]
        turn = phase.before[source] + block * phase.counts[source]
        turn += int((labels[:within] == labels[within]).sum())
        epoch, place = divmod(turn, self._windows[source])
        return source, int(self._order(source, epoch)[place])

    def _order(self, source: str, epoch: int) -> np.ndarray:
        key = (source, epoch)
        if key not in self._orders:
            generator = np.random.default_rng(seed_from(self._seed, source, epoch))
            self._orders[key] = generator.permutation(self._windows[source])
        return self._orders[key]

    def take(self, start: int, count: int) -> list[Sample]:
        return [self._sample(*self.place(number)) for number in range(start, start + count)]

    def _sample(self, source: str, window: int) -> Sample:
        start = window * (self._window - 1)
        ids = np.asarray(self._shards[source][start : start + self._window])
        return Sample((ids,), (self._mask,))
