"""Reference log-probabilities of pairs, computed once and cached on disk.

A cache is of one model's weights; each pair stands in it under the hash of its tokens, so that a
new order, more pairs or fewer cost only what is missing. Some pairs are computed again whenever it
is read, and training refuses to start where policy and reference differ (objectives.pairs).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from flywright.data.batch import Batch, Sample
from flywright.errors import GuardError
from flywright.files import atomic_file
from flywright.progress import Tick, silent
from flywright.train.guards import refuse_moved_reference
from flywright.train.objectives.base import Model, trained_logprobs
from flywright.train.passes import Passes

_CHECKED = 4  # pairs that are computed again when a cache is read
_ROW = np.dtype([("key", "S32"), ("logprobs", "<f4", 2)])


@torch.no_grad()
def pair_reference(passes: Passes, samples: Sequence[Sample], tick: Tick = silent) -> np.ndarray:
    """Log-probabilities [P, 2] of each pair's answers under the model of `passes`, fp32.

    The same on all ranks of a mesh, each of which computes its share.
    """
    rows: list[np.ndarray] = [np.zeros((0, 2), dtype=np.float32)]
    own: list[np.ndarray] = []

    def share(model: Model, batch: Batch, hidden_ND: torch.Tensor) -> torch.Tensor:
        sums_D = batch.document_sums(trained_logprobs(model, batch, hidden_ND))
        own.append(sums_D.reshape(-1, 2).float().cpu().numpy())
        return sums_D.sum()

    for done, total in passes.over(samples, share):
        rows += passes.ranks.collected(own)
        own.clear()
        tick(done, total, "reference log-probabilities")
    return np.concatenate(rows)


def with_reference(
    passes: Passes, samples: Sequence[Sample], cache: Path, tick: Tick = silent
) -> list[Sample]:
    """Samples with label "reference" [2]: from `cache`, after a check, and the rest computed.

    Raises GuardError if the cached values are not this model's.
    """
    keys = [_key(sample) for sample in samples]
    known = passes.ranks.agreed(_read(cache) if passes.ranks.first else {})
    stored = [n for n, key in enumerate(keys) if key in known][:_CHECKED]
    if stored:
        _recheck(passes, [samples[n] for n in stored], [known[keys[n]] for n in stored])
    missing = {key: n for n, key in enumerate(keys) if key not in known}
    if missing:
        fresh = pair_reference(passes, [samples[n] for n in missing.values()], tick)
        known |= dict(zip(missing, list(fresh), strict=True))
        passes.ranks.by_first(lambda: _write(cache, known))
    return [
        replace(sample, labels={**sample.labels, "reference": known[key]})
        for sample, key in zip(samples, keys, strict=True)
    ]


def _key(sample: Sample) -> bytes:
    hashed = hashlib.sha256()
    for document, mask in zip(sample.documents, sample.masks, strict=True):
        hashed.update(np.int64(len(document)).tobytes())
        hashed.update(document.astype(np.int64).tobytes() + mask.astype(bool).tobytes())
    return hashed.hexdigest()[:32].encode()


def _read(cache: Path) -> dict[bytes, np.ndarray]:
    if not cache.exists():
        return {}
    try:
        table = np.load(cache, allow_pickle=False)
        return dict(zip(table["key"].tolist(), table["logprobs"], strict=True))
    except (OSError, ValueError, IndexError) as error:
        raise GuardError(f"{cache}: not a reference cache: remove it ({error})") from None


def _write(cache: Path, known: dict[bytes, np.ndarray]) -> None:
    table = np.array([(key, tuple(pair)) for key, pair in known.items()], dtype=_ROW)
    with atomic_file(cache) as temporary, temporary.open("wb") as stream:
        np.save(stream, table)


def _recheck(passes: Passes, samples: Sequence[Sample], values: Sequence[np.ndarray]) -> None:
    again = pair_reference(passes, samples)
    tokens = np.array([[mask.sum() for mask in sample.masks] for sample in samples])
    gap = float((np.abs(again - np.stack(values)) / tokens).max())
    refuse_moved_reference(gap, passes.computes_in)
