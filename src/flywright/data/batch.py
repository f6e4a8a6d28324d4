"""Samples and batches: documents end to end in one row, no padding at all.

A batch holds the documents' tokens one after another with their lengths; attention keeps them apart
(model.attention.packed) and positions restart. Shapes: N tokens, M trained tokens, D documents.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass(frozen=True)
class Sample:
    """One or several documents that stay together (a pair has two), with labels.

    documents: token ids of each. masks: for each token, whether it is trained, that is predicted
    from the token before it (the first token never is). labels: name -> array for the sample.
    """

    documents: tuple[np.ndarray, ...]
    masks: tuple[np.ndarray, ...]
    labels: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens in all documents."""
        return sum(len(document) for document in self.documents)


@dataclass(frozen=True)
class Batch:
    """Documents end to end.

    ids_N, positions_N; lengths of the D documents. trained_M are the positions from which a trained
    token is predicted, targets_M those tokens, document_M their documents. labels are stacked over
    samples.
    """

    ids_N: torch.Tensor
    positions_N: torch.Tensor
    lengths: tuple[int, ...]
    trained_M: torch.Tensor
    targets_M: torch.Tensor
    document_M: torch.Tensor
    labels: dict[str, torch.Tensor]

    @property
    def trained_tokens(self) -> int:
        """How many tokens are predicted."""
        return self.targets_M.numel()

    @property
    def ends_D(self) -> torch.Tensor:
        """Position of each document's last token."""
        return torch.tensor(self.lengths).cumsum(0) - 1

    def document_sums(self, values_M: torch.Tensor) -> torch.Tensor:
        """Sums [D] of a per-trained-token value over each document."""
        sums_D = values_M.new_zeros(len(self.lengths))
        return sums_D.index_add(0, self.document_M, values_M)


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of samples, in order."""
    documents = [document for sample in samples for document in sample.documents]
    masks = [mask for sample in samples for mask in sample.masks]
    lengths = tuple(len(document) for document in documents)
    ids_N = torch.from_numpy(np.concatenate(documents).astype(np.int64))
    mask_N = np.concatenate(masks).astype(bool)
    starts = np.cumsum([0, *lengths[:-1]])
    mask_N[starts] = False  # a document's first token has nothing to be predicted from
    predicted_M = np.flatnonzero(mask_N)
    document_N = np.repeat(np.arange(len(lengths)), lengths)
    names = samples[0].labels
    return Batch(
        ids_N=ids_N,
        positions_N=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])),
        lengths=lengths,
        trained_M=torch.from_numpy(predicted_M - 1),
        targets_M=ids_N[torch.from_numpy(predicted_M)],
        document_M=torch.from_numpy(document_N[predicted_M]),
        labels={n: torch.from_numpy(np.stack([s.labels[n] for s in samples])) for n in names},
    )


def micro_batches(samples: Sequence[Sample], most_tokens: int) -> list[list[Sample]]:
    """Consecutive groups of samples of at most `most_tokens` tokens each (one sample at least)."""
    groups: list[list[Sample]] = []
    size = 0
    for sample in samples:
        if not groups or size + sample.tokens > most_tokens:
            groups.append([])
            size = 0
        groups[-1].append(sample)
        size += sample.tokens
    return groups


def total_tokens(samples: Iterable[Sample]) -> int:
    """Tokens of all samples."""
    return sum(sample.tokens for sample in samples)
