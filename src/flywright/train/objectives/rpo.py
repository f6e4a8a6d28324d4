"""Reward-aware preference optimization: D[beta R || eta dr] + w * L_SFT(chosen) (SPEC 8.2).

D[a || b] = s(b) log(s(b)/s(a)) + (1 - s(b)) log((1 - s(b))/(1 - s(a))), s = sigmoid. Its slope in a
is s(a) - s(b): stationary where the policy's margin says what the rewards say. DPO is dr -> inf.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch.nn import functional as F

from flywright.data.batch import Batch
from flywright.train.objectives.base import Objective
from flywright.train.objectives.pairs import preference_objective

Distance = Literal["backward", "forward", "squared"]


def divergence(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """D[a || b], elementwise, stable for large |a| and |b|."""
    toward = torch.sigmoid(b) * (F.logsigmoid(b) - F.logsigmoid(a))
    return toward + torch.sigmoid(-b) * (F.logsigmoid(-b) - F.logsigmoid(-a))


DISTANCES: dict[Distance, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "backward": divergence,  # the report's
    "forward": lambda a, b: divergence(b, a),
    "squared": lambda a, b: (a - b).square(),
}


def rpo(beta: float, eta: float, sft_weight: float, distance: Distance = "backward") -> Objective:
    """Averaged over pairs; label "rewards" [P, 2] holds r*(chosen), r*(rejected) (SPEC 8.3)."""

    def preference(R_P: torch.Tensor, batch: Batch) -> torch.Tensor:
        rewards_P2 = batch.labels["rewards"]
        return DISTANCES[distance](beta * R_P, eta * (rewards_P2[:, 0] - rewards_P2[:, 1]))

    return preference_objective("rpo", preference, sft_weight)
