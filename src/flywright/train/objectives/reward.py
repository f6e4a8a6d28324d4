"""Reward models (SPEC 5.2): regression on rated attributes, or Bradley-Terry on pairs.

Regression = sum(mask * (predicted - label)^2) / valid labels; a missing label is NaN in the batch.
Bradley-Terry = -log sigmoid(r(chosen) - r(rejected)), r = the first attribute, helpfulness.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from flywright.data.batch import Batch
from flywright.model import RewardModel
from flywright.train.objectives.base import Model, Objective, batch_hidden
from flywright.train.objectives.pairs import pair_count

Ranking = Literal["plain", "scaled", "margin"]


def predicted_attributes(model: Model, batch: Batch, hidden_ND: Tensor | None = None) -> Tensor:
    """Attributes [D, 5] at each document's last token."""
    hidden_ND = batch_hidden(model, batch) if hidden_ND is None else hidden_ND
    assert isinstance(model, RewardModel)
    return model.attributes(hidden_ND[batch.ends_D])


def reward() -> Objective:
    """Sum of squared errors over valid labels, averaged over them."""

    def loss(predicted_D5: Tensor, batch: Batch):
        error_D5 = predicted_D5 - batch.labels["attributes"]
        error_D5 = error_D5.where(~batch.labels["attributes"].isnan(), torch.zeros_like(error_D5))
        return error_D5.square().sum(), {"absolute_error": error_D5.detach().abs().sum()}

    def valid_labels(batch: Batch) -> float:
        return float((~batch.labels["attributes"].isnan()).sum())

    return Objective("reward", predicted_attributes, loss, valid_labels)


def ranking(by: Ranking = "plain") -> Objective:
    """Bradley-Terry, averaged over pairs: the rewards of two prompts are never compared.

    Documents are chosen and rejected in turn; at equal rewards the plain loss is ln 2. With label
    "strength" [P] = m, how much better the chosen answer was found (HelpSteer2-Preference,
    arXiv 2410.01257): scaled = -m log sigmoid(gap), margin = -log sigmoid(gap - m).
    """

    def loss(predicted_D5: Tensor, batch: Batch):
        gap_P = predicted_D5[0::2, 0] - predicted_D5[1::2, 0]
        metrics = {"accuracy": (gap_P > 0).float().sum(), "reward_gap": gap_P.detach().sum()}
        if by == "plain":
            return -F.logsigmoid(gap_P).sum(), metrics
        strength_P = batch.labels["strength"]
        if by == "margin":
            return -F.logsigmoid(gap_P - strength_P).sum(), metrics
        return -(strength_P * F.logsigmoid(gap_P)).sum(), metrics

    return Objective("ranking", predicted_attributes, loss, pair_count)
