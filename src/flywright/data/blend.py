"""A blend of token shards, cut into windows: exact shares, seekable, each window once an epoch.

Sample i of the run lies in block i // BLOCK; in every block each source has its exact share, in an
order drawn for that block. Within a source, windows come in an order drawn for each epoch.
"""

from collections.abc import Mapping

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


class BlendedWindows:
    """A Loader of language-model windows of `window` tokens from several shards.

    Windows of a shard overlap by one token, so that each token is predicted once an epoch.
    """

    def __init__(
        self,
        shards: Mapping[str, np.ndarray],
        weights: Mapping[str, float],
        window: int,
        seed: int,
    ):
        unknown = set(weights) - set(shards)
        if unknown:
            known = ", ".join(shards)
            raise UserError(f"blend: no source {sorted(unknown)[0]!r}; there are: {known}")
        self._shards = {name: shards[name] for name in sorted(weights)}
        self._window = window
        self._seed = seed
        self._windows = {n: (len(s) - 1) // (window - 1) for n, s in self._shards.items()}
        for name, count in self._windows.items():
            if count < 1:
                raise UserError(f"blend: source {name!r} is shorter than one window of {window}")
        self._counts = block_counts({name: weights[name] for name in self._shards})
        self._orders: dict[tuple[str, int], np.ndarray] = {}
        self._mask = np.ones(window, dtype=bool)
        self._mask[0] = False

    def __len__(self) -> int:
        return sum(self._windows.values())

    def place(self, number: int) -> tuple[str, int]:
        """Source and window of sample `number` of the run."""
        block, within = divmod(number, BLOCK)
        names = list(self._counts)
        labels = np.repeat(np.arange(len(names)), [self._counts[name] for name in names])
        generator = np.random.default_rng(seed_from(self._seed, "block", block))
        labels = generator.permutation(labels)
        source = names[labels[within]]
        earlier = int((labels[:within] == labels[within]).sum())
        turn = block * self._counts[source] + earlier
        epoch, place = divmod(turn, self._windows[source])
        return source, int(self._order(source, epoch)[place])

    def _order(self, source: str, epoch: int) -> np.ndarray:
        key = (source, epoch)
        if key not in self._orders:
            generator = np.random.default_rng(seed_from(self._seed, source, epoch))
            self._orders[key] = generator.permutation(self._windows[source])
        return self._orders[key]

    def take(self, start: int, count: int) -> list[Sample]:
        """Samples number start .. start + count - 1 of the run."""
        return [self._sample(*self.place(number)) for number in range(start, start + count)]

    def _sample(self, source: str, window: int) -> Sample:
        start = window * (self._window - 1)
        ids = np.asarray(self._shards[source][start : start + self._window])
        return Sample((ids,), (self._mask,))
