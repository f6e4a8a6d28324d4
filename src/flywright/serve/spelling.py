"""How single tokens are written on the wires: their text, their bytes, their width.

A token that is part of a character is written as the vocabulary writes it (`<0xE6>`), and a control
token by its own text; everything else as it reads in the middle of a text.
"""

from collections.abc import Container, Iterable
from itertools import groupby

from flywright.tokenizer import Tokenizer


class Speller:
    """Spellings of a tokenizer's tokens, kept once made."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._anchor = tokenizer.encode("a")[-1:]
        self._before = tokenizer.decode(self._anchor)
        self._known: dict[int, tuple[str, bytes | None]] = {}

    def text(self, token: int) -> str:
        """What a token reads like."""
        return self._spelt(token)[0]

    def bytes_of(self, token: int) -> list[int] | None:
        """Its bytes; None where they cannot be told."""
        raw = self._spelt(token)[1]
        return None if raw is None else list(raw)

    def width(self, token: int) -> int:
        """How many characters begin in it; control tokens have the width of their text."""
        return sum(byte & 0xC0 != 0x80 for byte in self._spelt(token)[1] or b"")

    def starts(self, tokens: list[int], first: int = 0) -> list[int]:
        """Where each token starts, in characters."""
        starts = []
        for token in tokens:
            starts.append(first)
            first += self.width(token)
        return starts

    def _spelt(self, token: int) -> tuple[str, bytes | None]:
        if token not in self._known:
            self._known[token] = self._spell(token)
        return self._known[token]

    def _spell(self, token: int) -> tuple[str, bytes | None]:
        piece = self._tokenizer.piece(token)
        if token in self._tokenizer.control_ids:
            return piece, piece.encode()
        if raw := self._tokenizer.byte(token):
            return (raw.decode() if raw < b"\x80" else piece), raw
        text = self._tokenizer.decode([*self._anchor, token]).removeprefix(self._before)
        return (piece, None) if "\ufffd" in text else (text, text.encode())

    def shown(self, tokens: Iterable[int], hidden: Container[int | None] = ()) -> str:
        """Text of tokens, with the texts of control tokens that are not `hidden`."""
        decode, control = self._tokenizer.decode, self._tokenizer.control_ids
        parts: list[str] = []
        for is_control, run in groupby(tokens, control.__contains__):
            if is_control:
                parts += [self._tokenizer.piece(token) for token in run if token not in hidden]
            else:
                parts.append(decode(list(run)))
        return "".join(parts)
