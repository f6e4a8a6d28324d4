"""Law 8: first LM loss ~ ln V; DPO at the reference is ln 2; RPO there is ln 2 - H(sigmoid(dr))."""

import math

import numpy as np
import pytest
import torch

from flywright.data.batch import Sample, collate
from flywright.model import Decoder
from flywright.train.objectives import dpo, ipo, language_model, rpo
from flywright.train.objectives.base import trained_logprobs
from flywright.train.objectives.pairs import DISTANCES, divergence

GENERATOR = np.random.default_rng(0)


def pairs(spec, rewards: list[tuple[float, float]]) -> tuple[Decoder, list[Sample]]:
    """A model and pairs whose reference is the model itself."""
    model = Decoder(spec, seed=0)
    samples = []
    for reward in rewards:
        ids = tuple(GENERATOR.integers(0, 400, n) for n in (9, 6))
        masks = tuple(np.arange(len(i)) > 2 for i in ids)
        bare = Sample(ids, masks)
        batch = collate([bare])
        reference = batch.document_sums(trained_logprobs(model, batch)).detach().numpy()
        labels = {"reference": reference, "rewards": np.array(reward, dtype=np.float32)}
        samples.append(Sample(ids, masks, labels))
    return model, samples


def mean_loss(objective, model, samples) -> float:
    batch = collate(samples)
    loss, _ = objective.loss(objective.outputs(model, batch), batch)
    return loss.item() / objective.count(batch)


def test_first_lm_loss_is_ln_v(tiny_spec):
    model = Decoder(tiny_spec.model_copy(update={"init_std": 0.002}), seed=0)
    ids = GENERATOR.integers(0, 400, 100)
    sample = Sample((ids,), (np.ones(100, dtype=bool),))
    assert mean_loss(language_model(), model, [sample]) == pytest.approx(math.log(400), rel=1e-3)


def test_dpo_at_the_reference_is_ln_2(tiny_spec):
    model, samples = pairs(tiny_spec, [(1.0, 0.0)] * 3)
    assert mean_loss(dpo(0.3, 0.0), model, samples) == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("gap", [0.0, 0.5, 2.0, -1.0])
def test_rpo_at_the_reference(tiny_spec, gap):
    model, samples = pairs(tiny_spec, [(gap, 0.0)] * 2)
    s = 1 / (1 + math.exp(-gap))
    entropy = -(s * math.log(s) + (1 - s) * math.log(1 - s))
    expected = math.log(2) - entropy
    assert mean_loss(rpo(0.3, 1.0, 0.0), model, samples) == pytest.approx(expected, abs=1e-5)


def test_rpo_is_stationary_where_margin_meets_reward():
    for b in (-30.0, -1.0, 0.0, 2.5, 40.0):
        a = torch.tensor(b, dtype=torch.float64, requires_grad=True)
        value = divergence(a, torch.tensor(b, dtype=torch.float64))
        (slope,) = torch.autograd.grad(value, a)
        assert abs(value.item()) < 1e-12 and abs(slope.item()) < 1e-12


def test_dpo_is_rpo_at_infinite_gap():
    a = torch.linspace(-3, 3, 7, dtype=torch.float64)
    far = divergence(a, torch.full_like(a, 60.0))
    torch.testing.assert_close(far, -torch.nn.functional.logsigmoid(a), rtol=1e-9, atol=1e-9)


def test_forward_and_squared_rpo_are_stationary_there_too(tiny_spec):
    for distance in ("forward", "squared"):
        for b in (-2.0, 0.0, 1.5):
            a = torch.tensor(b, dtype=torch.float64, requires_grad=True)
            value = DISTANCES[distance](a, torch.tensor(b, dtype=torch.float64))
            (slope,) = torch.autograd.grad(value, a)
            assert abs(value.item()) < 1e-12 and abs(slope.item()) < 1e-12
        away = torch.tensor([0.0, 3.0], dtype=torch.float64)
        assert (DISTANCES[distance](away, torch.full_like(away, 1.5)) > 0.05).all()
    model, samples = pairs(tiny_spec, [(0.5, 0.0)] * 2)
    squared = mean_loss(rpo(0.3, 2.0, 0.0, "squared"), model, samples)
    assert squared == pytest.approx((2.0 * 0.5) ** 2, abs=1e-4)


def test_ipo_at_the_reference(tiny_spec):
    model, samples = pairs(tiny_spec, [(1.0, 0.0)] * 3)
    assert mean_loss(ipo(0.25, 0.0), model, samples) == pytest.approx(4.0, abs=1e-3)


def test_sft_term_is_the_weighted_chosen_sum(tiny_spec):
    model, samples = pairs(tiny_spec, [(1.0, 0.0)] * 2)
    chosen = float(np.mean([s.labels["reference"][0] for s in samples]))
    with_term = mean_loss(dpo(0.3, 0.25), model, samples)
    assert with_term == pytest.approx(math.log(2) - 0.25 * chosen, abs=1e-4)


def test_masked_tokens_count_in_nothing(tiny_spec):
    model, samples = pairs(tiny_spec, [(1.0, 0.0)])
    (sample,) = samples
    empty = tuple(np.zeros_like(mask) for mask in sample.masks)
    batch = collate([Sample(sample.documents, empty)])
    assert language_model().count(batch) == 0
    assert language_model().loss(trained_logprobs(model, batch), batch)[0].item() == 0.0
