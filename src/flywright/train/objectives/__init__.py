"""Objectives: pure functions (outputs, batch) -> (loss sum, metric sums), and what they count.

The loop divides the sums of a global batch by its count (HOUSE law 6), so that accumulating k
micro-batches equals one batch of k.
"""

from flywright.train.objectives.base import Objective
from flywright.train.objectives.pairs import dpo, ipo, rpo
from flywright.train.objectives.reward import ranking, reward
from flywright.train.objectives.sft import language_model, sft

__all__ = ["Objective", "dpo", "ipo", "language_model", "ranking", "reward", "rpo", "sft"]
