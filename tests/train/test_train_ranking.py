"""Bradley-Terry: ln 2 where the rewards are equal; the gradient pushes them apart, and no more."""

import math
from types import SimpleNamespace

import pytest
import torch

from flywright.data.examples import ranking_examples
from flywright.errors import UserError
from flywright.records import Comparison, Conversation, Lineage
from flywright.train.objectives.reward import ranking


def test_equal_rewards_cost_ln_2_each():
    predicted_D5 = torch.randn(6, 5)
    predicted_D5[1::2, 0] = predicted_D5[0::2, 0]
    loss, metrics = ranking().loss(predicted_D5, None)  # type: ignore[arg-type]
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


@pytest.mark.parametrize("by", ["scaled", "margin"])
def test_how_much_better_an_answer_is_counts(by):
    """HelpSteer2-Preference's two forms, by hand."""
    gaps, strengths = [0.7, -1.2, 0.0], [1.0, 3.0, 2.0]
    predicted_D5 = torch.zeros(6, 5)
    predicted_D5[0::2, 0] = torch.tensor(gaps)
    batch = SimpleNamespace(labels={"strength": torch.tensor(strengths)})
    found = ranking(by).loss(predicted_D5, batch)[0].item()  # type: ignore[arg-type]
    log_sigmoid = lambda x: -math.log(1 + math.exp(-x))  # noqa: E731
    by_hand = {
        "scaled": -sum(m * log_sigmoid(g) for g, m in zip(gaps, strengths, strict=True)),
        "margin": -sum(log_sigmoid(g - m) for g, m in zip(gaps, strengths, strict=True)),
    }
    assert found == pytest.approx(by_hand[by], rel=1e-5)


def test_a_missing_strength_is_an_error(tokenizer):
    pair = Comparison(
        id="c", conversation=Conversation.of("Sort"), chosen="apple", rejected="pear",
        lineage=Lineage(source="test"),
    )  # fmt: skip
    with pytest.raises(UserError, match="record c: ranking by strength"):
        ranking_examples([pair], tokenizer, 99, needs_strength=True)
    stated = pair.model_copy(update={"strength": 2.0})
    (sample,) = ranking_examples([stated], tokenizer, 99, needs_strength=True).samples
    assert sample.labels["strength"] == 2.0
