"""Law 2: packed loss == unpacked loss, token for token, for every kind of sample.

A pair's prompt computed once gives what computing it twice gives: values, gradients, rewards.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flywright.data.batch import Sample, collate, micro_batches
from flywright.model import Decoder, RewardModel
from flywright.train.objectives.base import trained_logprobs
from flywright.train.objectives.reward import predicted_attributes


def random_samples(count: int, documents: int) -> list[Sample]:
    generator = np.random.default_rng(0)
    samples = []
    for _ in range(count):
        lengths = generator.integers(3, 20, documents)
        ids = tuple(generator.integers(0, 400, n) for n in lengths)
        masks = tuple(generator.random(n) < 0.6 for n in lengths)
        samples.append(Sample(ids, masks))
    return samples


def test_each_tokens_logprob_is_that_of_its_document_alone(tiny_spec):
    model = Decoder(tiny_spec, seed=0).double()
    for documents in (1, 2):
        samples = random_samples(6, documents)
        together = trained_logprobs(model, collate(samples))
        alone = torch.cat([trained_logprobs(model, collate([sample])) for sample in samples])
        torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)


def test_every_trained_token_is_there_once():
    samples = random_samples(8, 2)
    batch = collate(samples)
    expected = sum(int(mask[1:].sum()) for sample in samples for mask in sample.masks)
    assert batch.trained_tokens == expected
    assert sum(batch.lengths) == batch.ids_N.numel()


def test_document_sums_go_to_their_documents():
    samples = random_samples(3, 2)
    batch = collate(samples)
    counts = batch.document_sums(torch.ones(batch.trained_tokens))
    masks = [mask for sample in samples for mask in sample.masks]
    assert counts.tolist() == [float(mask[1:].sum()) for mask in masks]


def test_micro_batches_keep_every_sample_in_order():
    samples = random_samples(20, 1)
    groups = micro_batches(samples, 40)
    assert [s for group in groups for s in group] == samples
    assert all(sum(s.tokens for s in g) <= 40 or len(g) == 1 for g in groups)


def sharing_pairs(count: int) -> list[Sample]:
    """Pairs with a common prompt of 1 to 90 tokens, answers of 1 to 40; the answers are trained."""
    generator = np.random.default_rng(1)
    samples = []
    for _ in range(count):
        prompt = generator.integers(0, 400, int(generator.integers(1, 90)))
        answers = [generator.integers(0, 400, int(n)) for n in generator.integers(1, 40, 2)]
        documents = tuple(np.concatenate([prompt, answer]) for answer in answers)
        masks = tuple(np.arange(len(d)) >= len(prompt) for d in documents)
        samples.append(Sample(documents, masks, {}, len(prompt)))
    return samples


@pytest.mark.parametrize("kind", ["policy", "reward"])
def test_a_shared_prompt_changes_nothing(tiny_spec, kind):
    model = Decoder(tiny_spec, seed=0).double()
    outputs = trained_logprobs
    if kind == "reward":
        model, outputs = RewardModel.from_decoder(model, seed=0), predicted_attributes
    shared = sharing_pairs(9)
    apart = [replace(sample, shared=0) for sample in shared]
    found = []
    for samples in (shared, apart):
        model.zero_grad()
        batch = collate(samples)
        values = outputs(model, batch)
        (values * torch.linspace(1, 2, values.numel()).view_as(values)).sum().backward()
        found.append([values, *(p.grad for p in model.parameters() if p.grad is not None)])
    for ours, twin in zip(*found, strict=True):
        torch.testing.assert_close(ours, twin, rtol=1e-5 if kind == "reward" else 1e-9, atol=1e-7)
    assert collate(shared).ids_N.numel() == sum(sample.tokens for sample in shared)
    assert collate(shared).ids_N.numel() < collate(apart).ids_N.numel()
