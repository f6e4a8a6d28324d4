"""What DPO and RPO share: log-ratios of pairs, the SFT term, health metrics.

A sample is a pair; its two documents are (chosen, rejected). Labels: "reference" [P, 2], the
reference's answer log-probabilities. Shapes: P pairs, M trained tokens.
"""

from dataclasses import dataclass

import torch

from flywright.data.batch import Batch


@dataclass(frozen=True)
class Pairs:
    """Sums over answer tokens: chosen_P, rejected_P under the policy; margin_P = R of SPEC 8.2."""

    chosen_P: torch.Tensor
    rejected_P: torch.Tensor
    margin_P: torch.Tensor


def pair_logprobs(logprob_M: torch.Tensor, batch: Batch) -> Pairs:
    """Answer log-probabilities and the log-ratio margin R of each pair."""
    policy_P2 = batch.document_sums(logprob_M).reshape(-1, 2)
    ratio_P2 = policy_P2 - batch.labels["reference"]
    return Pairs(policy_P2[:, 0], policy_P2[:, 1], ratio_P2[:, 0] - ratio_P2[:, 1])


def pair_count(batch: Batch) -> float:
    """Divisor of DPO and RPO: pairs."""
    return len(batch.lengths) / 2


def with_sft_term(
    preference_P: torch.Tensor, pairs: Pairs, sft_weight: float, batch: Batch
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss sum = preference + sft_weight * (-log pi(chosen)), and metrics that tell of health."""
    loss = preference_P.sum() - sft_weight * pairs.chosen_P.sum()
    reference_P2 = batch.labels["reference"]
    metrics = {
        "preference_loss": preference_P.sum(),
        "accuracy": (pairs.margin_P > 0).float().sum(),
        "margin": pairs.margin_P.sum(),
        "chosen_logprob": pairs.chosen_P.sum(),
        "rejected_logprob": pairs.rejected_P.sum(),
        "chosen_gain": (pairs.chosen_P - reference_P2[:, 0]).sum(),
    }
    return loss, {name: value.detach() for name, value in metrics.items()}
