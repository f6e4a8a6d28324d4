"""One tiny Nemotron for the tests of several rooms: its words, its tokenizer and its shape."""

from typing import Any

from flywright.spec import ModelSpec
from flywright.tokenizer import Tokenizer, train_tokenizer


def words_of(letters: str = "bcdfghklmnpr") -> list[str]:
    """Short words that a tokenizer of a few hundred pieces knows whole."""
    return [f"{a}{b}" for a in letters for b in ("an", "el", "ob", "ut")]


def train_tiny(
    letters: str = "bcdfghklmnpr", lines: int = 40, size: int = 320, end: str = ".\n"
) -> Tokenizer:
    """A tokenizer of these words."""
    words = words_of(letters)
    return train_tokenizer([" ".join(words[i:] + words[:i]) + end for i in range(lines)], size)


def spec_of(tokenizer: Tokenizer, **changes: Any) -> ModelSpec:
    """Two layers with grouped queries and half-rotary heads, whose random weights have opinions."""
    shape: dict[str, Any] = {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2}
    shape |= {"head_dim": 16, "ffn_size": 48, "context_length": 64}
    shape |= {"rotary_fraction": 0.5, "init_std": 0.3, "vocab_size": tokenizer.vocab_size}
    return ModelSpec(**(shape | changes))
