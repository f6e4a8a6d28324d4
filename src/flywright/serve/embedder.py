"""Vectors from an OpenAI-compatible server's /v1/embeddings."""

import asyncio
from collections.abc import Sequence
from functools import partial

import numpy as np

from flywright.ask import Limited, gather
from flywright.serve.http import Http

BATCH = 128  # texts in one request


class HttpEmbedder:
    """An Embedder over HTTP; `model` is the name on the wire."""

    def __init__(self, base_url: str, model: str, api_key: str = ""):
        self.http, self.model = Http(base_url, api_key), model
        self._limits = Limited(self)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[T, D] of float32, each row of length 1. Raises AskError."""
        return asyncio.run(self._embed(list(texts)))

    async def _embed(self, texts: list[str]) -> np.ndarray:
        parts = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        bodies = [{"model": self.model, "input": part} for part in parts]
        calls = [partial(self.http.call, "/v1/embeddings", one) for one in bodies]
        replies = await gather(self._limits.within, calls)
        await self.http.close()
        try:
            rows = [row for reply in replies for row in sorted(reply["data"], key=_index)]
            made = np.array([row["embedding"] for row in rows], dtype=np.float32)
        except (KeyError, TypeError, ValueError):
            raise self.http.misshapen("embeddings in data") from None
        if len(made) != len(texts) or made.ndim != 2:
            raise self.http.misshapen("embedding for each text")
        lengths = np.linalg.norm(made, axis=1, keepdims=True)
        return made / np.where(lengths, lengths, 1)


def _index(row: dict) -> int:
    return row["index"]
