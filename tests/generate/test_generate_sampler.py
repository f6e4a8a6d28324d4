"""Draws follow the distribution that the settings ask for, and depend on seed and index alone."""

import pytest
import torch

from flywright.generate.sampler import Draw, sample, uniform

COUNT = 20_000
LOGITS_V = torch.tensor([2.0, -1.0, 1.0, 0.5, -3.0, float("-inf"), 1.5, 0.0])


def draw(temperature=1.0, top_k=0, top_p=1.0, rows=COUNT, index=0, min_p=0.0) -> Draw:
    return Draw(
        temperature=torch.full((rows,), temperature),
        top_k=torch.full((rows,), top_k),
        top_p=torch.full((rows,), top_p),
        min_p=torch.full((rows,), min_p),
        seed=torch.arange(rows),
        index=torch.full((rows,), index),
    )


def expected_shares(
    temperature: float, top_k: int, top_p: float, min_p: float = 0.0
) -> torch.Tensor:
    """The distribution by the book, one token at a time from the top."""
    weights = (LOGITS_V / temperature).softmax(-1)
    order = weights.argsort(descending=True)[: top_k or None]
    total, mass, kept = float(weights[order].sum()), 0.0, []
    for token in order.tolist():
        if (mass >= top_p and kept) or weights[token] < min_p * weights[order[0]]:
            break
        kept.append(token)
        mass += float(weights[token]) / total
    shares = torch.zeros_like(weights)
    shares[kept] = weights[kept] / weights[kept].sum()
    return shares


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [(1.0, 0, 1.0, 0), (0.5, 0, 1.0, 0), (2.0, 3, 1.0, 0), (1.0, 0, 0.6, 0), (1.5, 4, 0.7, 0),
     (1.0, 1, 1.0, 0), (1.0, 0, 0.0, 0), (1.0, 100, 0.999, 0), (1.0, 0, 1.0, 0.3),
     (1.5, 0, 0.9, 0.2)],
)  # fmt: skip
def test_shares_follow_the_settings(temperature, top_k, top_p, min_p):
    how = draw(temperature, top_k, top_p, min_p=min_p)
    tokens = sample(LOGITS_V.expand(COUNT, -1), how)
    shares = torch.bincount(tokens, minlength=len(LOGITS_V)) / COUNT
    expected = expected_shares(temperature, top_k, top_p, min_p)
    assert torch.equal(shares > 0, expected > 0)
    assert torch.allclose(shares, expected, atol=0.012)


def test_greedy_takes_the_most_likely_whatever_else_is_set():
    logits_BV = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    tokens = sample(logits_BV, draw(0.0, top_k=3, top_p=0.5, rows=50))
    assert torch.equal(tokens, logits_BV.argmax(-1))


def test_rows_with_different_settings_do_not_touch_each_other():
    generator = torch.Generator().manual_seed(1)
    logits_BV = torch.randn(40, 60, generator=generator) * 3
    mixed = Draw(
        temperature=torch.tensor([0.0, 1.0, 0.7, 2.0] * 10),
        top_k=torch.tensor([0, 5, 0, 20, 3] * 8),
        top_p=torch.tensor([1.0, 0.8] * 20),
        min_p=torch.tensor([0.0, 0.1, 0.0, 0.0, 0.3] * 8),
        seed=torch.arange(40) * 7919,
        index=torch.arange(40) % 6,
    )
    together = sample(logits_BV, mixed)
    for row in range(40):
        one = slice(row, row + 1)
        alone = sample(logits_BV[one], mixed.rows(torch.tensor([row])))
        assert alone[0] == together[row]


def test_uniform_numbers_are_uniform_over_seeds_and_over_indices():
    zeros, counts = torch.zeros(COUNT, dtype=torch.long), torch.arange(COUNT)
    for numbers in (uniform(counts, zeros), uniform(zeros + 2**62, counts)):
        assert numbers.min() >= 0 and numbers.max() < 1
        shares = torch.histc(numbers, bins=20, min=0, max=1) / COUNT
        assert torch.allclose(shares, torch.full_like(shares, 0.05), atol=0.008)
        pairs = torch.corrcoef(torch.stack((numbers[:-1], numbers[1:])))
        assert abs(pairs[0, 1]) < 0.03


def test_uniform_is_splitmix64():
    mask = 2**64 - 1

    def mix(value: int) -> int:
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        return value ^ (value >> 31)

    for seed, index in ((0, 0), (1, 5), (2**63 - 1, 3), (123456789, 4095)):
        bits = mix((mix(seed) + (index + 1) * 0x9E3779B97F4A7C15) & mask)
        got = uniform(torch.tensor([seed]), torch.tensor([index]))
        assert float(got) == (bits >> 32) / 2**32
