"""Bradley-Terry: ln 2 where the rewards are equal; the gradient pushes them apart, and no more."""

import math

import pytest
import torch

from flywright.train.objectives.reward import ranking, ranking_loss


def test_equal_rewards_cost_ln_2_each():
    predicted_D5 = torch.randn(6, 5)
    predicted_D5[1::2, 0] = predicted_D5[0::2, 0]
    loss, metrics = ranking_loss(predicted_D5, None)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(3 * math.log(2), abs=1e-6)
    assert metrics["reward_gap"] == 0 and metrics["accuracy"] == 0


def test_the_gradient_is_the_chance_of_being_wrong():
    predicted_D5 = torch.zeros(2, 5, dtype=torch.float64)
    predicted_D5[0, 0] = 1.5
    predicted_D5.requires_grad_()
    ranking().loss(predicted_D5, None)[0].backward()  # type: ignore[arg-type]
    wrong = 1 / (1 + math.exp(1.5))
    assert predicted_D5.grad is not None
    assert predicted_D5.grad[:, 0].tolist() == pytest.approx([-wrong, wrong])
    assert not predicted_D5.grad[:, 1:].any()  # the other attributes are not trained
