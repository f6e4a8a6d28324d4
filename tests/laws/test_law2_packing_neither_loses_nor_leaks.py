"""Law 2: packed loss == unpacked loss, token for token, for every kind of sample."""

import numpy as np
import torch

from flywright.data.batch import Sample, collate, micro_batches
from flywright.model import Decoder
from flywright.train.objectives.base import trained_logprobs


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
