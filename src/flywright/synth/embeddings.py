"""Vectors of texts: a static table of word vectors from a folder; others are handed in.

    embedder = StaticTable(folder)     # model2vec's layout: tokenizer.json, model.safetensors
    embedder.embed(["a text"])         # [1, D], each row of length 1

What such vectors call alike is the table's: reworded texts, and translated ones only where it was
made for several languages.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from flywright.errors import UserError

BLOCK = 2048  # texts that are compared at once


class Embedder(Protocol):
    """Anything that turns texts into vectors."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[T, D] of float32, each row of length 1 (or 0 where nothing is known of the text)."""
        ...


def unit(rows: np.ndarray) -> np.ndarray:
    """The rows at length 1; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths, lengths, 1)).astype(np.float32)


class StaticTable:
    """The mean of the vectors of a text's tokens. Raises UserError for a folder without a table."""

    def __init__(self, folder: Path):
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._table = load_file(folder / "model.safetensors")["embeddings"].astype(np.float32)
        except (OSError, KeyError, SafetensorError, Exception) as error:
            told = "a folder with tokenizer.json and model.safetensors (tensor 'embeddings')"
            raise UserError(f"{folder}: not {told}: {error}") from None
        self._tokenizer.no_truncation()

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[T, D] of float32, each row of length 1."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        rows = [[i for i in one.ids if i < len(self._table)] for one in found]
        zero = np.zeros(self._table.shape[1], dtype=np.float32)
        return unit(np.stack([self._table[ids].mean(axis=0) if ids else zero for ids in rows]))


def near_vectors(vectors: np.ndarray, threshold: float) -> dict[int, tuple[int, float]]:
    """Row -> (an earlier row that stays, cosine), of rows whose cosine reaches `threshold`.

    Every pair of blocks is compared: the time is quadratic in the rows, the memory is not.
    """
    copies: dict[int, tuple[int, float]] = {}
    for start in range(0, len(vectors), BLOCK):
        block = np.asarray(vectors[start : start + BLOCK])
        pairs: dict[int, list[tuple[int, float]]] = {}
        for before in range(0, start + 1, BLOCK):
            alike = block @ np.asarray(vectors[before : before + BLOCK]).T
            for row, column in np.argwhere(alike >= threshold):
                if before + column < start + row:
                    found = (int(before + column), float(alike[row, column]))
                    pairs.setdefault(int(start + row), []).append(found)
        for row in sorted(pairs):
            stays = [pair for pair in pairs[row] if pair[0] not in copies]
            if stays:
                copies[row] = max(stays, key=lambda pair: pair[1])
    return copies
