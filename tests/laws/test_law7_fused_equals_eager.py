"""Law 7: the chunked log-probability op equals the full-logit one, values and gradients."""

import pytest
import torch

from flywright.model import logprobs


@pytest.mark.parametrize("rows, columns", [(1, 30), (7, 8), (1024, 16_384), (5, 1)])
def test_values_and_gradients(monkeypatch, rows, columns):
    monkeypatch.setattr(logprobs, "FEWEST_ROWS", rows)
    monkeypatch.setattr(logprobs, "MOST_ROWS", rows)
    monkeypatch.setattr(logprobs, "MOST_COLUMNS", columns)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(20, 8, generator=generator, dtype=torch.float64)
    weight = torch.randn(30, 8, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 30, (20,), generator=generator)
    upstream = torch.randn(20, generator=generator, dtype=torch.float64)
    results = []
    for op in (logprobs.token_logprobs, logprobs.token_logprobs_naive):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        value = op(h, w, targets)
        value.backward(upstream)
        results.append((value, h.grad, w.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
