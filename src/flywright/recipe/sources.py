"""Where a recipe's raw material comes from: documents, ratings, prompts with truth, a first model.

A source is a class named in the recipe ("package.module:Class"), made with the run's seed. Anything
that keeps this protocol will do; the records are those of records.py.
"""

import importlib
from collections.abc import Iterator
from typing import Protocol

from flywright.ask import Completer
from flywright.errors import UserError
from flywright.records import Conversation, Document, Prompt, Rating


class TextSource(Protocol):
    """What a base is made of. Everything is the same for the same seed."""

    fingerprint: str  # changes when what the source gives changes
    notes: tuple[str, ...]  # what a reader of the report has to know of it
    patterned: bool = False  # texts of one kind with what is measured: alike is not yet a copy

    def documents(self) -> Iterator[Document]:
        """Texts to pretrain on."""
        ...

    def questions(self) -> list[Document]:
        """Question-answer texts for continued training."""
        return []

    def benchmark_texts(self) -> Iterator[tuple[str, str]]:
        """(benchmark, text) of everything that must not be trained on."""
        ...


class Source(TextSource, Protocol):
    """Raw material of the whole road."""

    def ratings(self, count: int) -> list[Rating]:
        """Human-like ratings; rows 2k and 2k + 1 share a prompt."""
        ...

    def rated_heldout(self, split: str, count: int) -> list[Rating]:
        """The same on held-out prompts, with lineage.scores["gold_helpfulness"] if known."""
        ...

    def prompts(self, count: int) -> list[Prompt]:
        """Training prompts with ground truth."""
        ...

    def code_seeds(self) -> list[Prompt]:
        """Coding prompts that Genetic Instruct starts from."""
        ...

    def heldout(self, split: str, count: int) -> list[Prompt]:
        """Held-out prompts of a split ("near", "far", or "tuning" to choose settings by)."""
        ...

    def weakness(self, prompt: Prompt) -> str:
        """The kind of error that the generator makes on a held-out prompt; "" = none or unknown."""
        return ""

    def identify(self, conversation: Conversation) -> str:
        """The same text for two wordings of one item, for the check of overlap; "" = unknown."""
        return ""

    def generator(self) -> Completer:
        """The first model that writes data."""
        ...


def open_source(target: str, seed: int) -> Source:
    """The source behind "package.module:Class". Raises UserError where there is none."""
    module_name, colon, class_name = target.partition(":")
    try:
        if not colon:
            raise ImportError("expected package.module:Class")
        return getattr(importlib.import_module(module_name), class_name)(seed)
    except (ImportError, AttributeError) as error:
        raise UserError(f"source {target!r}: cannot be used: {error}") from None
