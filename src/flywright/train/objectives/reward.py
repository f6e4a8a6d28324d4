"""Reward regression: MSE over the attributes that were rated (SPEC 5.2).

Loss = sum(mask * (predicted - label)^2) / valid labels; a missing label is NaN in the batch.
"""

import torch

from flywright.data.batch import Batch
from flywright.model import RewardModel
from flywright.train.objectives.base import Model, Objective, batch_hidden


def predicted_attributes(model: Model, batch: Batch) -> torch.Tensor:
    """Attributes [D, 5] at each document's last token."""
    assert isinstance(model, RewardModel)
    return model.attributes(batch_hidden(model, batch)[batch.ends_D])


def regression_loss(
    predicted_D5: torch.Tensor, batch: Batch
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Sum of squared errors over valid labels, and the sum of absolute errors as a metric."""
    error_D5 = predicted_D5 - batch.labels["attributes"]
    valid_D5 = ~batch.labels["attributes"].isnan()
    error_D5 = torch.where(valid_D5, error_D5, torch.zeros_like(error_D5))
    return error_D5.square().sum(), {"absolute_error": error_D5.detach().abs().sum()}


def valid_labels(batch: Batch) -> float:
    """Divisor: labels that are not missing."""
    return float((~batch.labels["attributes"].isnan()).sum())


def reward() -> Objective:
    """Averaged over valid labels."""
    return Objective("reward", predicted_attributes, regression_loss, valid_labels)
