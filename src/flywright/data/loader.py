"""The order of samples: a pure function of the seed and of how many were consumed.

So a resumed run, or one with another number of ranks, sees the same order; the loader has no state.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from flywright.data.batch import Sample
from flywright.files import seed_from


class Loader(Protocol):
    """What the training loop reads from."""

    def take(self, start: int, count: int) -> list[Sample]:
        """Samples number start .. start + count - 1 of the run."""
        ...

    def __len__(self) -> int:
        """Samples in one epoch."""
        ...


class Shuffled:
    """A list of samples, in another order each epoch; every sample once an epoch."""

    def __init__(self, samples: Sequence[Sample], seed: int):
        self._samples = samples
        self._seed = seed
        self._orders: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            generator = np.random.default_rng(seed_from(self._seed, "order", epoch))
            self._orders = {epoch: generator.permutation(len(self._samples))}
        return self._orders[epoch]

    def index(self, number: int) -> int:
        epoch, place = divmod(number, len(self._samples))
        return int(self._order(epoch)[place])

    def take(self, start: int, count: int) -> list[Sample]:
        """Samples number start .. start + count - 1 of the run."""
        return [self._samples[self.index(number)] for number in range(start, start + count)]
