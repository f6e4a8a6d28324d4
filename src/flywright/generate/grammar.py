"""Answers that keep to a grammar: JSON schemas, regular expressions, Lark; by llguidance.

grammars = Grammars(tokenizer, end_ids); constraint = grammars.open("regex:[0-9]+")
constraint.allowed() -> bool [V];  constraint.accept(token) -> whether the answer is complete
"""

import json
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flywright.errors import UserError
from flywright.tokenizer import Tokenizer

_MOST_CHARACTERS = 65_536
_FUEL = 100_000  # for a grammar's beginning; nested counts would take seconds with llguidance's own
_KINDS = {"json": "grammar_from_json_schema", "regex": "grammar_from_regex"}


class Constraint:
    """Where an answer stands in its grammar."""

    def __init__(self, matcher: Any, outputs: int):
        self._matcher, self._outputs = matcher, outputs

    def allowed(self) -> Tensor:
        """Tokens that may come next, bool [V]; the end tokens where the text may end."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        mask = np.unpackbits(bits, bitorder="little")[: self._outputs].astype(bool)
        self._check()
        return torch.from_numpy(mask)

    def accept(self, token: int) -> bool:
        """Go on by a drawn token; True if nothing can follow it. Raises UserError."""
        self._matcher.consume_token(token)
        self._check()
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():  # never let an answer through unchecked
            said = self._matcher.get_error().replace("NoExtensionBias", "no text keeps to it")
            raise UserError(f"grammar: {_line(said)}")


class Grammars:
    """Compiles grammars for a tokenizer; raises UserError where llguidance is missing."""

    def __init__(self, tokenizer: Tokenizer, end_ids: tuple[int, ...]):
        self._tokenizer, self._end_ids = tokenizer, end_ids

    def open(self, grammar: str) -> Constraint:
        """A constraint at its text's beginning. Raises UserError for a grammar that is none."""
        kind, _, source = grammar.partition(":")
        if len(source) > _MOST_CHARACTERS:
            raise UserError(f"grammar: {len(source)} characters, at most {_MOST_CHARACTERS}")
        made = Constraint(self._compiled(kind, source).deep_copy(), self._tokenizer.vocab_size)
        made.allowed()  # refused here where no text keeps to it, not in a batch's step
        return made

    @lru_cache(maxsize=64)  # noqa: B019 - one for each engine, which lives as long
    def _compiled(self, kind: str, source: str) -> Any:
        if kind not in (*_KINDS, "lark"):
            raise UserError(f"grammar: {kind!r} is no kind of grammar; json, regex or lark is")
        matcher_type, vocabulary, limits = self._library
        try:
            if kind == "json":
                json.loads(source)
            made = source if kind == "lark" else getattr(matcher_type, _KINDS[kind])(source)
        except (ValueError, RecursionError) as error:
            raise UserError(f"grammar: {_line(str(error))}") from None
        matcher = matcher_type(vocabulary, made, log_level=0, limits=limits)
        if matcher.is_error():
            raise UserError(f"grammar: {_line(matcher.get_error())}")
        return matcher

    @cached_property
    def _library(self) -> tuple[Any, Any, Any]:
        """The matcher's type, the vocabulary as llguidance has it (each token's bytes), limits."""
        try:
            from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
        except ImportError:
            raise UserError("a grammar needs llguidance: pip install 'flywright[serve]'") from None
        source = self._tokenizer.fast_source
        made = source or TokenizerWrapper(_Vocabulary(self._tokenizer, self._end_ids))
        size, ends = self._tokenizer.vocab_size, list(self._end_ids)
        limits = LLParserLimits(initial_lexer_fuel=_FUEL, verbose_errors=False)
        return LLMatcher, LLTokenizer(made, n_vocab=size, eos_token=ends), limits


class _Vocabulary:
    """A tokenizer as llguidance asks for it."""

    def __init__(self, tokenizer: Tokenizer, end_ids: tuple[int, ...]):
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = end_ids[0], None
        self.special_token_ids = sorted(tokenizer.control_ids)
        self.tokens = [
            tokenizer.byte(i) or tokenizer.piece(i).replace("\u2581", " ").encode()
            for i in range(tokenizer.vocab_size)
        ]

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)


def _line(message: str) -> str:
    return " ".join(message.removesuffix("<non-verbose/>").split())[:300]
