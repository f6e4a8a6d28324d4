"""Law 6: k micro-batches give the gradient of one batch of k, for every objective."""

import numpy as np
import pytest
import torch

from flywright.data.batch import Sample, collate
from flywright.model import Decoder, RewardModel
from flywright.train.objectives import dpo, ipo, language_model, ranking, reward, rpo, sft

GENERATOR = np.random.default_rng(0)


def document(length: int) -> tuple[np.ndarray, np.ndarray]:
    return GENERATOR.integers(0, 400, length), GENERATOR.random(length) < 0.7


def single() -> Sample:
    ids, mask = document(int(GENERATOR.integers(4, 15)))
    labels = GENERATOR.random(5).astype(np.float32)
    labels[GENERATOR.integers(0, 5)] = np.nan
    return Sample((ids,), (mask,), {"attributes": labels})


def pair() -> Sample:
    documents = [document(int(GENERATOR.integers(4, 15))) for _ in range(2)]
    labels = {
        name: GENERATOR.normal(size=2).astype(np.float32) for name in ("reference", "rewards")
    }
    return Sample(tuple(d for d, _ in documents), tuple(m for _, m in documents), labels)


CASES = {
    "lm": (language_model(), single),
    "sft": (sft(), single),
    "reward": (reward(), single),
    "ranking": (ranking(), pair),
    "ipo": (ipo(beta=0.1, sft_weight=0.01), pair),
    "dpo": (dpo(beta=0.1, sft_weight=0.01), pair),
    "rpo": (rpo(beta=0.1, eta=1.0, sft_weight=0.01), pair),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients(tiny_spec, name):
    objective, make = CASES[name]
    samples = [make() for _ in range(6)]
    decoder = Decoder(tiny_spec, seed=0)
    model = RewardModel.from_decoder(decoder, seed=0) if name in ("reward", "ranking") else decoder

    def gradient(groups):
        model.zero_grad()
        batches = [collate(group) for group in groups]
        count = sum(objective.count(batch) for batch in batches)
        for batch in batches:
            loss, _ = objective.loss(objective.outputs(model, batch), batch)
            (loss / count).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    whole = gradient([samples])
    torch.testing.assert_close(gradient([samples[:1], samples[1:4], samples[4:]]), whole)
    assert whole.abs().max() > 0
