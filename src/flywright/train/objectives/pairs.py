"""What DPO, IPO and RPO share: log-ratios of pairs, the SFT term, and what tells of their health.

A sample is a pair; its two documents are (chosen, rejected). Labels: "reference" [P, 2], the
reference's answer log-probabilities. Shapes: P pairs, M trained tokens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from flywright.data.batch import Batch
from flywright.train.guards import refuse_moved_reference
from flywright.train.objectives.base import Objective, trained_logprobs

Preference = Callable[[torch.Tensor, Batch], torch.Tensor]


@dataclass(frozen=True)
class Pairs:
    """Sums over answer tokens under the policy, under the reference, and the answers' tokens."""

    policy_P2: torch.Tensor
    reference_P2: torch.Tensor
    tokens_P2: torch.Tensor

    @property
    def margin_P(self) -> torch.Tensor:
        """R of SPEC 8.2: the log-ratio of chosen minus that of rejected."""
        ratio_P2 = self.policy_P2 - self.reference_P2
        return ratio_P2[:, 0] - ratio_P2[:, 1]


def pair_logprobs(logprob_M: torch.Tensor, batch: Batch) -> Pairs:
    """Answer log-probabilities of each pair."""
    sums_P2, tokens_P2 = (
        batch.document_sums(values_M).reshape(-1, 2)
        for values_M in (logprob_M, torch.ones_like(logprob_M))
    )
    return Pairs(sums_P2, batch.labels["reference"], tokens_P2)


def pair_count(batch: Batch) -> float:
    """Divisor of DPO, IPO and RPO: pairs."""
    return batch.documents / 2


def preference_objective(name: str, preference: Preference, sft_weight: float) -> Objective:
    """Loss sum = preference(R_P, batch) + sft_weight * (-log pi(chosen)), averaged over pairs."""

    def loss(logprob_M: torch.Tensor, batch: Batch):
        pairs = pair_logprobs(logprob_M, batch)
        preference_P = preference(pairs.margin_P, batch)
        total = preference_P.sum() - sft_weight * pairs.policy_P2[:, 0].sum()
        return total, _sums(preference_P.detach(), pairs)

    return Objective(name, trained_logprobs, loss, pair_count, health, _start)


@torch.no_grad()
def _sums(preference_P: torch.Tensor, pairs: Pairs) -> dict[str, torch.Tensor]:
    """Sums over pairs; those with a leading "_" are what `health` makes its figures of."""
    margin_P = pairs.margin_P
    longer_P = pairs.tokens_P2[:, 0] - pairs.tokens_P2[:, 1]
    gain_P2 = pairs.policy_P2 - pairs.reference_P2
    return {
        "preference_loss": preference_P.sum(),
        "accuracy": (margin_P > 0).float().sum(),
        "margin": margin_P.sum(),
        "chosen_logprob": pairs.policy_P2[:, 0].sum(),
        "rejected_logprob": pairs.policy_P2[:, 1].sum(),
        "chosen_gain": gain_P2[:, 0].sum(),
        "_gain": gain_P2.sum(),
        "_moved": gain_P2.abs().sum(),
        "_tokens": pairs.tokens_P2.sum(),
        "_chosen_tokens": pairs.tokens_P2[:, 0].sum(),
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
