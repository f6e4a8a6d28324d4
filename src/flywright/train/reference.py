"""Reference log-probabilities of pairs, computed once and cached on disk.

The cache is keyed by the weights' and the data's fingerprints; the first samples are computed again
and compared whenever it is read (policy == reference at step 0).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from flywright.data.batch import Sample, collate, micro_batches
from flywright.files import atomic_file
from flywright.progress import Tick, silent
from flywright.train.guards import refuse_moved_reference
from flywright.train.objectives.base import Model, trained_logprobs

_CHECKED = 4  # pairs that are computed again when a cache is read
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}  # natural log a token


@torch.inference_mode()
def pair_reference(
    model: Model, samples: Sequence[Sample], most_tokens: int, tick: Tick = silent
) -> np.ndarray:
    """Log-probabilities [P, 2] of each pair's answers under `model`, fp32."""
    rows: list[np.ndarray] = []
    done = 0
    for group in micro_batches(samples, most_tokens):
        batch = collate(group)
        sums_D = batch.document_sums(trained_logprobs(model, batch))
        rows.append(sums_D.reshape(-1, 2).float().numpy())
        done += len(group)
        tick(done, len(samples), "reference log-probabilities")
    return np.concatenate(rows)


def with_reference(
    model: Model,
    samples: Sequence[Sample],
    cache: Path,
    most_tokens: int,
    tick: Tick = silent,
) -> list[Sample]:
    """Samples with label "reference" [2]; computed once, then read from `cache` and rechecked.

    Raises GuardError if the cached values are not this model's on these samples.
    """
    if cache.exists():
        values = np.load(cache, allow_pickle=False)
        _recheck(model, samples, values, most_tokens)
    else:
        values = pair_reference(model, samples, most_tokens, tick)
        with atomic_file(cache) as temporary, temporary.open("wb") as stream:
            np.save(stream, values)
    return [
        replace(sample, labels={**sample.labels, "reference": value})
        for sample, value in zip(samples, values, strict=True)
    ]


def _recheck(model: Model, samples: Sequence[Sample], values: np.ndarray, most_tokens: int) -> None:
    again = pair_reference(model, samples[:_CHECKED], most_tokens)
    tokens = [[mask.sum() for mask in sample.masks] for sample in samples[:_CHECKED]]
    gap = float(np.abs((again - values[:_CHECKED]) / np.array(tokens)).max())
    if len(values) != len(samples):
        gap = float("inf")
    refuse_moved_reference(gap, _TOLERANCE[next(model.parameters()).dtype])
