"""Token shards: documents as one memory-mapped array of ids, each document ended by eos.

A shard is NAME.npy (uint16, or uint32 beyond 65,536 ids). It is written as it comes: only one batch
of documents is in memory.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np

from flywright.errors import UserError
from flywright.files import atomic_file
from flywright.tokenizer import Tokenizer

Append = Callable[[np.ndarray], int]
BATCH_DOCUMENTS = 1024  # that all cores encode at once


def token_kind(tokenizer: Tokenizer) -> np.dtype:
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)


@contextmanager
def shard_writer(path: Path, kind: np.dtype) -> Iterator[Append]:
    """Appends ids to a shard and returns how many it has.

    It is there, whole, when the block is left without an error.
    """
    tokens = 0
    with atomic_file(path) as temporary, temporary.open("wb") as stream:

        def header() -> None:
            made = {"descr": kind.str, "fortran_order": False, "shape": (tokens,)}
            np.lib.format.write_array_header_1_0(stream, made)  # as long for every number

        def append(ids: np.ndarray) -> int:
            nonlocal tokens
            stream.write(np.ascontiguousarray(ids, dtype=kind).data)
            tokens += len(ids)
            return tokens

        header()
        yield append
        stream.seek(0)
        header()


def write_shard(path: Path, texts: Iterable[str], tokenizer: Tokenizer) -> int:
    """Encode texts into `path` (an .npy file), atomically; returns the number of tokens."""
    waiting, tokens = iter(texts), 0
    with shard_writer(path, token_kind(tokenizer)) as append:
        while some := list(islice(waiting, BATCH_DOCUMENTS)):
            for ids in tokenizer.encode_batch(some):
                tokens = append(np.array([*tokenizer.opening, *ids, tokenizer.eos_id]))
    return tokens


def open_shard(path: Path) -> np.ndarray:
    """The tokens, memory-mapped. Raises UserError where the file is missing or not a shard."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a token shard: {error}") from None


class WordEncoder(dict[str, bytes]):
    """Encodes by words that it remembers, where a vocabulary's pieces never span two of them.

    A word is its letters with the spaces before it. Where a piece has a space after something else,
    or a text's ids are not its words', every text is encoded whole.
    """

    _WORD = re.compile(r"\n| *[^ \n]+| +")
    _PROBE = "  Two words,\n\n and  digits 12.5 \n\tend "
    _MOST_WORDS, _LONGEST = 1 << 18, 32

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer, self.kind = tokenizer, token_kind(tokenizer)
        pieces = map(tokenizer.piece, range(tokenizer.vocab_size))
        self._apart = not any(re.search("[^▁]▁", piece) for piece in pieces)
        self._apart = self._apart and (self._by_words(self._PROBE) == self._whole(self._PROBE))

    def document(self, text: str) -> np.ndarray:
        """Ids of a document as a shard holds them, between the opening and eos."""
        opening, end = self._tokenizer.opening, self._tokenizer.eos_id
        found = np.frombuffer((self._by_words if self._apart else self._whole)(text), self.kind)
        return np.concatenate([opening, found, [end]]).astype(self.kind)

    def _whole(self, text: str) -> bytes:
        return np.array(self._tokenizer.encode(text), dtype=self.kind).tobytes()

    def _by_words(self, text: str) -> bytes:
        return b"".join(map(self.__getitem__, self._WORD.findall(text)))

    def __missing__(self, word: str) -> bytes:
        found = self._whole(word)
        if len(word) <= self._LONGEST:
            if len(self) >= self._MOST_WORDS:
                self.clear()
            self[word] = found
        return found
