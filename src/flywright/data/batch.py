"""Samples and batches: documents end to end in one row, no padding at all.

A batch holds segments of tokens one after another; attention keeps documents apart
(model.attention.packed) and positions restart. A segment is a document, or what several documents
of a sample begin with (a pair's prompt), which is then computed once, or how one of them goes on.
Shapes: N tokens, M trained tokens, D documents.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch


@dataclass(frozen=True)
class Sample:
    """One or several documents that stay together (a pair has two), with labels.

    documents: token ids of each. masks: for each token, whether it is trained, that is predicted
    from the token before it (the first token never is). labels: name -> array for the sample.
    shared: so many leading tokens, none of them trained, are the same in all documents.
    """

    documents: tuple[np.ndarray, ...]
    masks: tuple[np.ndarray, ...]
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    shared: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that are computed: those of all documents, shared ones once."""
        unshared = sum(len(document) for document in self.documents)
        return unshared - self.shared * (len(self.documents) - 1)


@dataclass(frozen=True)
class Batch:
    """Segments end to end.

    ids_N, positions_N; lengths of the segments, and of each the one that it goes on from (-1: it
    begins a document). ends_D: position of each document's last token. trained_M are the positions
    from which a trained token is predicted, targets_M those tokens, document_M their documents.
    labels are stacked over samples.
    """

    ids_N: torch.Tensor
    positions_N: torch.Tensor
    lengths: tuple[int, ...]
    parents: tuple[int, ...]
    ends_D: torch.Tensor
    trained_M: torch.Tensor
    targets_M: torch.Tensor
    document_M: torch.Tensor
    labels: dict[str, torch.Tensor]
    filled: int = 0  # tokens of the last segment, where it only fills the batch up

    @property
    def trained_tokens(self) -> int:
        return self.targets_M.numel()

    @property
    def documents(self) -> int:
        return self.ends_D.numel()

    def document_sums(self, values_M: torch.Tensor) -> torch.Tensor:
        """Sums [D] of a per-trained-token value over each document."""
        sums_D = values_M.new_zeros(self.documents)
        return sums_D.index_add(0, self.document_M, values_M)

    def to(self, device: torch.device) -> "Batch":
        moved = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        return replace(self, **moved, labels={n: v.to(device) for n, v in self.labels.items()})


def collate(samples: Sequence[Sample], tokens: int = 0, like: Sample | None = None) -> Batch:
    """One batch of samples, in order, then filled up to `tokens` with what is not trained.

    It may have no sample at all: `like` is one whose labels it would have.
    """
    ids: list[np.ndarray] = []
    positions, parents, ends, trained, targets = [], [], [], [], []
    place = 0
    for sample in samples:
        shared, root = sample.shared, -1
        if shared:
            root = len(ids)
            ids.append(sample.documents[0][:shared])
            parents.append(-1)
            positions.append(np.arange(shared))
            place += shared
        before = place - 1  # where a first own token is predicted from, if anything is shared
        for document, mask in zip(sample.documents, sample.masks, strict=True):
            own = document[shared:]
            predicted = np.flatnonzero(mask[shared:])
            if not shared:  # a document's first token has nothing to be predicted from
                predicted = predicted[predicted > 0]
            trained.append(np.where(predicted > 0, place + predicted - 1, before))
            targets.append(own[predicted])
            ids.append(own)
            parents.append(root)
            positions.append(np.arange(shared, len(document)))
            place += len(own)
            ends.append(place - 1)
    if place < tokens:
        ids.append(np.zeros(tokens - place))
        parents.append(-1)
        positions.append(np.arange(tokens - place))
    empty = (like or samples[0]).labels
    labels = {n: [s.labels[n] for s in samples] or np.empty((0, *empty[n].shape), empty[n].dtype)
              for n in empty}  # fmt: skip
    nothing = np.zeros(0, np.int64)
    return Batch(
        ids_N=torch.from_numpy(np.concatenate(ids).astype(np.int64)),
        positions_N=torch.from_numpy(np.concatenate(positions)),
        lengths=tuple(len(segment) for segment in ids),
        parents=tuple(parents),
        ends_D=torch.tensor(ends, dtype=torch.int64),
        trained_M=torch.from_numpy(np.concatenate([nothing, *trained])),
        targets_M=torch.from_numpy(np.concatenate([nothing, *targets]).astype(np.int64)),
        document_M=torch.from_numpy(
            np.repeat(np.arange(len(ends)), np.array([len(m) for m in trained], np.int64))
        ),
        labels={name: torch.from_numpy(np.asarray(values)) for name, values in labels.items()},
        filled=max(0, tokens - place),
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
    return sum(sample.tokens for sample in samples)
