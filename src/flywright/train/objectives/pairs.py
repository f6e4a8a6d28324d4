"""DPO, IPO and RPO, each with a weighted SFT term on the chosen answer (SPEC 8.2, 8.3).

A sample is a pair; its two documents are (chosen, rejected). Labels: "reference" [P, 2], the
reference's answer log-probabilities; for RPO "rewards" [P, 2]. Shapes: P pairs, M trained tokens.
R is the policy's log-ratio to the reference of the chosen answer minus that of the rejected one.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from flywright.data.batch import Batch
from flywright.train.guards import refuse_moved_reference
from flywright.train.objectives.base import Objective, trained_logprobs

Preference = Callable[[Tensor, Batch], Tensor]
Distance = Literal["backward", "forward", "squared"]


def dpo(beta: float, sft_weight: float) -> Objective:
    """-log sigmoid(beta R). At policy == reference it is ln 2."""
    return _objective("dpo", lambda R_P, _: -F.logsigmoid(beta * R_P), sft_weight)


def ipo(beta: float, sft_weight: float) -> Objective:
    """(R - 1 / (2 beta))^2, R of sums over tokens; stationary at a margin that beta sets."""
    return _objective("ipo", lambda R_P, _: (R_P - 0.5 / beta).square(), sft_weight)


def rpo(beta: float, eta: float, sft_weight: float, distance: Distance = "backward") -> Objective:
    """D[beta R || eta dr]: stationary where the policy's margin says what the rewards say.

    dr = r*(chosen) - r*(rejected). DPO is dr -> inf.
    """

    def preference(R_P: Tensor, batch: Batch) -> Tensor:
        rewards_P2 = batch.labels["rewards"]
        return DISTANCES[distance](beta * R_P, eta * (rewards_P2[:, 0] - rewards_P2[:, 1]))

    return _objective("rpo", preference, sft_weight)


def divergence(a: Tensor, b: Tensor) -> Tensor:
    """D[a || b] = s(b) log(s(b)/s(a)) + (1 - s(b)) log((1 - s(b))/(1 - s(a))), s = sigmoid.

    Elementwise, stable for large |a| and |b|; its slope in a is s(a) - s(b).
    """
    toward = torch.sigmoid(b) * (F.logsigmoid(b) - F.logsigmoid(a))
    return toward + torch.sigmoid(-b) * (F.logsigmoid(-b) - F.logsigmoid(-a))


DISTANCES: dict[Distance, Callable[[Tensor, Tensor], Tensor]] = {
    "backward": divergence,  # the report's
    "forward": lambda a, b: divergence(b, a),
    "squared": lambda a, b: (a - b).square(),
}


def pair_count(batch: Batch) -> float:
    """Divisor of what is averaged over pairs."""
    return batch.documents / 2


def _objective(name: str, preference: Preference, sft_weight: float) -> Objective:
    """Loss sum = preference(R_P, batch) + sft_weight * (-log pi(chosen)), averaged over pairs."""

    def loss(logprob_M: Tensor, batch: Batch):
        policy_P2, tokens_P2 = (
            batch.document_sums(values_M).reshape(-1, 2)
            for values_M in (logprob_M, torch.ones_like(logprob_M))
        )
        gain_P2 = policy_P2 - batch.labels["reference"]
        preference_P = preference(gain_P2[:, 0] - gain_P2[:, 1], batch)
        total = preference_P.sum() - sft_weight * policy_P2[:, 0].sum()
        return total, _sums(preference_P, policy_P2, gain_P2, tokens_P2)

    return Objective(name, trained_logprobs, loss, pair_count, health, _start)


@torch.no_grad()
def _sums(
    preference_P: Tensor, policy_P2: Tensor, gain_P2: Tensor, tokens_P2: Tensor
) -> dict[str, Tensor]:
    """Sums over pairs; those with a leading "_" are what `health` makes its figures of."""
    margin_P = gain_P2[:, 0] - gain_P2[:, 1]
    longer_P = tokens_P2[:, 0] - tokens_P2[:, 1]
    return {
        "preference_loss": preference_P.sum(),
        "accuracy": (margin_P > 0).float().sum(),
        "margin": margin_P.sum(),
        "chosen_logprob": policy_P2[:, 0].sum(),
        "rejected_logprob": policy_P2[:, 1].sum(),
        "chosen_gain": gain_P2[:, 0].sum(),
        "_gain": gain_P2.sum(),
        "_moved": gain_P2.abs().sum(),
        "_tokens": tokens_P2.sum(),
        "_chosen_tokens": tokens_P2[:, 0].sum(),
        "_margin_squared": margin_P.square().sum(),
        "_longer": longer_P.sum(),
        "_longer_squared": longer_P.square().sum(),
        "_margin_longer": (margin_P * longer_P).sum(),
    }


def _start(means: dict[str, float], dtype: torch.dtype) -> None:
    """The policy is the reference before the first update."""
    refuse_moved_reference(means["_moved"] / max(means["_tokens"], 1.0), dtype)


def health(means: dict[str, float]) -> dict[str, float]:
    """Figures of a global batch from its means over pairs.

    kl_per_token: reference minus policy log-probability a token of the answers, nats; it is
    KL(reference || policy) where the reference wrote them. chosen_gain_per_token: how far the
    policy has moved toward the chosen answers. margin_length_correlation: of R with how many tokens
    the chosen answer is longer.
    """
    of_margin = means["_margin_squared"] - means["margin"] ** 2
    of_length = means["_longer_squared"] - means["_longer"] ** 2
    together = means["_margin_longer"] - means["margin"] * means["_longer"]
    spread = math.sqrt(max(of_margin, 0.0) * max(of_length, 0.0))
    return {
        "kl_per_token": -means["_gain"] / max(means["_tokens"], 1.0),
        "chosen_gain_per_token": means["chosen_gain"] / max(means["_chosen_tokens"], 1.0),
        "margin_length_correlation": together / spread if spread > 1e-9 else 0.0,
    }
