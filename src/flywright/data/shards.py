"""Token shards: documents as one memory-mapped array of ids, each document ended by eos.

A shard is NAME.npy (uint16, or uint32 beyond 65,536 ids).
"""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np

from flywright.errors import UserError
from flywright.files import atomic_file
from flywright.tokenizer import Tokenizer

BATCH_DOCUMENTS = 1024  # that all cores encode at once


def write_shard(path: Path, texts: Iterable[str], tokenizer: Tokenizer) -> int:
    """Encode texts into `path` (an .npy file), atomically; returns the number of tokens."""
    kind = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    parts: list[np.ndarray] = []
    waiting = iter(texts)
    while some := list(islice(waiting, BATCH_DOCUMENTS)):
        for ids in tokenizer.encode_batch(some):
            parts.append(np.array([*tokenizer.opening, *ids, tokenizer.eos_id], dtype=kind))
    tokens = np.concatenate(parts) if parts else np.zeros(0, dtype=kind)
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, tokens)
    return int(tokens.size)


def open_shard(path: Path) -> np.ndarray:
    """The tokens, memory-mapped. Raises UserError where the file is missing or not a shard."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a token shard: {error}") from None
