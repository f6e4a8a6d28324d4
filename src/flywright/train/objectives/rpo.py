"""Reward-aware preference optimization: D[beta R || eta dr] + w * L_SFT(chosen) (SPEC 8.2).

D[a || b] = s(b) log(s(b)/s(a)) + (1 - s(b)) log((1 - s(b))/(1 - s(a))), s = sigmoid. Its slope in a
is s(a) - s(b): stationary where the policy's margin says what the rewards say. DPO is dr -> inf.
"""

import torch
from torch.nn import functional as F

from flywright.data.batch import Batch
from flywright.train.objectives.base import Objective, trained_logprobs
from flywright.train.objectives.pairs import pair_count, pair_logprobs, with_sft_term


def divergence(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """D[a || b], elementwise, stable for large |a| and |b|."""
    toward = torch.sigmoid(b) * (F.logsigmoid(b) - F.logsigmoid(a))
    return toward + torch.sigmoid(-b) * (F.logsigmoid(-b) - F.logsigmoid(-a))


def rpo(beta: float, eta: float, sft_weight: float) -> Objective:
    """Averaged over pairs; label "rewards" [P, 2] holds r*(chosen), r*(rejected)."""

    def loss(logprob_M: torch.Tensor, batch: Batch):
        pairs = pair_logprobs(logprob_M, batch)
        rewards_P2 = batch.labels["rewards"]
        gap_P = rewards_P2[:, 0] - rewards_P2[:, 1]
        preference_P = divergence(beta * pairs.margin_P, eta * gap_P)
        return with_sft_term(preference_P, pairs, sft_weight, batch)

    return Objective("rpo", trained_logprobs, loss, pair_count)
