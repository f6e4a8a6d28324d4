"""Every objective against its formula (SPEC 5.2, 8.2) in numpy float64, on drawn inputs."""

import numpy as np
import pytest
import torch

from flywright.data.batch import Batch, Sample, collate
from flywright.train.objectives import dpo, ranking, reward, rpo
from flywright.train.objectives.base import Objective

SEEDS = range(20)


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(log_sigmoid(x))


def mean_of(objective: Objective, outputs: np.ndarray, batch: Batch) -> tuple[float, np.ndarray]:
    """The objective's mean and its gradient in `outputs`, both as the loop takes them."""
    given = torch.tensor(outputs, dtype=torch.float64, requires_grad=True)
    mean = objective.loss(given, batch)[0] / objective.count(batch)
    mean.backward()
    assert given.grad is not None
    return mean.item(), given.grad.numpy()


def rated(seed: int) -> tuple[np.ndarray, np.ndarray, Batch]:
    """Predicted and rated attributes with some missing, and their batch."""
    draw = np.random.default_rng(seed)
    predicted, labels = draw.normal(2, 2, (7, 5)), draw.uniform(0, 4, (7, 5))
    labels[draw.random((7, 5)) < 0.4] = np.nan
    labels[seed % 7] = np.nan  # a record of which nothing is known
    ids, mask = np.arange(3), np.zeros(3, dtype=bool)
    return (
        predicted,
        labels,
        collate([Sample((ids,), (mask,), {"attributes": one}) for one in labels]),
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_regression_is_the_mean_over_known_labels(seed):
    predicted, labels, batch = rated(seed)
    mean, gradient = mean_of(reward(), predicted, batch)
    error, known = predicted - labels, ~np.isnan(labels)
    assert mean == pytest.approx(np.mean(error[known] ** 2), rel=1e-12)
    expected = np.where(known, 2 * error / known.sum(), 0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)


def drawn_pairs(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Batch]:
    """Token log-probabilities, their documents, reference [P, 2], rewards [P, 2], and the batch."""
    draw = np.random.default_rng(seed)
    samples, documents = [], []
    for pair in range(5):
        lengths, prompt = draw.integers(3, 9, 2), int(draw.integers(1, 3))
        masks = [np.arange(length) >= prompt for length in lengths]
        documents += [2 * pair + side for side in (0, 1) for _ in range(lengths[side] - prompt)]
        labels = {"reference": draw.normal(-12, 6, 2), "rewards": draw.normal(0, 3, 2)}
        ids = tuple(np.arange(length) for length in lengths)
        samples.append(Sample(ids, tuple(masks), labels))
    logprobs = -draw.gamma(1.0, 3.0, len(documents))
    reference, rewards = (
        np.array([sample.labels[name] for sample in samples]) for name in ("reference", "rewards")
    )
    return logprobs, np.array(documents), reference, rewards, collate(samples)


def margins(logprobs, documents, reference) -> tuple[np.ndarray, np.ndarray]:
    """R of each pair, and log pi of its chosen answer."""
    sums = np.array([logprobs[documents == one].sum() for one in range(2 * len(reference))])
    ratio = sums.reshape(-1, 2) - reference
    return ratio[:, 0] - ratio[:, 1], sums[::2]


def token_slopes(documents, slope_of_margin, sft_weight) -> np.ndarray:
    """d mean / d logprob of each token: the margin's slope by its side, and the SFT term's."""
    sign = np.where(documents % 2 == 0, 1.0, -1.0)
    slopes = slope_of_margin[documents // 2] * sign - sft_weight * (documents % 2 == 0)
    return slopes / len(slope_of_margin)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("beta", "sft_weight"), [(0.1, 0.0), (0.7, 0.2)])
def test_dpo_with_its_sft_term(seed, beta, sft_weight):
    logprobs, documents, reference, _, batch = drawn_pairs(seed)
    mean, gradient = mean_of(dpo(beta, sft_weight), logprobs, batch)
    margin, chosen = margins(logprobs, documents, reference)
    expected = np.mean(-log_sigmoid(beta * margin) - sft_weight * chosen)
    assert mean == pytest.approx(expected, rel=1e-12)
    slopes = token_slopes(documents, -beta * sigmoid(-beta * margin), sft_weight)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("beta", "eta", "sft_weight"), [(0.1, 1.0, 0.0), (0.5, 0.3, 0.1)])
def test_rpo_is_the_divergence_of_two_coins(seed, beta, eta, sft_weight):
    logprobs, documents, reference, rewards, batch = drawn_pairs(seed)
    mean, gradient = mean_of(rpo(beta, eta, sft_weight), logprobs, batch)
    margin, chosen = margins(logprobs, documents, reference)
    said, wanted = sigmoid(beta * margin), sigmoid(eta * (rewards[:, 0] - rewards[:, 1]))
    apart = wanted * np.log(wanted / said) + (1 - wanted) * np.log((1 - wanted) / (1 - said))
    assert mean == pytest.approx(np.mean(apart - sft_weight * chosen), rel=1e-9)
    slopes = token_slopes(documents, beta * (said - wanted), sft_weight)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("seed", SEEDS)
def test_bradley_terry_reads_helpfulness_alone(seed):
    draw = np.random.default_rng(seed)
    predicted, batch = draw.normal(0, 3, (10, 5)), drawn_pairs(seed)[-1]
    mean, gradient = mean_of(ranking(), predicted, batch)
    gap = predicted[::2, 0] - predicted[1::2, 0]
    assert mean == pytest.approx(np.mean(-log_sigmoid(gap)), rel=1e-12)
    expected = np.zeros((10, 5))
    expected[::2, 0], expected[1::2, 0] = -sigmoid(-gap) / 5, sigmoid(-gap) / 5
    np.testing.assert_allclose(gradient, expected, rtol=1e-10)
