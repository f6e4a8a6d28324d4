"""Who answers behind the wires: a completer, a scorer, and a bounded number of askers.

`Backend` is handed to every wire. Its gate counts the answers asked for at this moment; beyond the
bound a request gets 429 and Retry-After at once instead of a place in an endless queue.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import Field

from flywright.ask import Completer, Completion, Sampling, Scorer
from flywright.files import seed_from
from flywright.records import Conversation
from flywright.serve.problems import Problem
from flywright.settings import Settings
from flywright.tokenizer import Tokenizer, chat

Answer = TypeVar("Answer")


class ServeSettings(Settings):
    """Where and how to serve. `context_tokens` is the model's; `max_pending` counts answers."""

    host: str = "127.0.0.1"
    port: int = Field(default=1424, ge=0, le=65535)
    model_name: str = ""
    reward_name: str = ""
    context_tokens: int = Field(default=4096, ge=1)
    default_max_tokens: int = Field(default=1024, ge=1)
    max_pending: int = Field(default=256, ge=1)
    max_body_bytes: int = Field(default=4 << 20, ge=1)
    body_seconds: float = Field(default=30.0, gt=0)
    deadline_seconds: float = Field(default=600.0, gt=0)
    nemo_strict: bool = False


class Gate:
    """Bounds the answers under way at one time."""

    def __init__(self, places: int):
        self.places = places
        self.taken = 0

    @contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Hold `count` places; a request larger than the house may come alone. Raises 429."""
        if self.taken and self.taken + count > self.places:
            raise Problem(
                429, "the server is busy; try again", code="overloaded", retry_after_seconds=1
            )
        self.taken += count
        try:
            yield
        finally:
            self.taken -= count


async def all_of(asks: Sequence[Awaitable[Answer]]) -> list[Answer]:
    """All answers in order; the first failure cancels the others."""
    tasks = [asyncio.ensure_future(ask) for ask in asks]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


@dataclass
class Backend:
    """The answerers and what the wires need to know of them."""

    completer: Completer | None
    tokenizer: Tokenizer | None
    scorer: Scorer | None
    settings: ServeSettings
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(self.settings.max_pending)

    @property
    def model_name(self) -> str:
        """The policy's name on the wire; empty if none is served."""
        if self.completer is None:
            return ""
        return self.settings.model_name or self.completer.model

    @property
    def reward_name(self) -> str:
        """The reward model's name on the wire; empty if none is served."""
        if self.scorer is None:
            return ""
        return self.settings.reward_name or self.scorer.model

    def prompt_ids(self, prompt: Conversation | str) -> list[int]:
        """Ids of a conversation, or of a raw prompt with its control texts; [] if not known."""
        if self.tokenizer is None:
            return []
        if isinstance(prompt, str):
            return chat.raw_ids(self.tokenizer, prompt)
        return chat.prompt_ids(self.tokenizer, prompt)

    async def complete(
        self, asks: Sequence[tuple[Conversation | str, Sampling]]
    ) -> list[Completion]:
        """Answers in order. Raises Problem: 404 no policy here, 429 busy, 504 too late."""
        completer = self.completer
        if completer is None:
            raise Problem(404, "no language model is served here, only a reward model")
        return await self.bounded([completer.complete(*ask) for ask in asks])

    async def bounded(self, asks: Sequence[Awaitable[Answer]]) -> list[Answer]:
        """Await answers behind the gate and within the deadline."""
        try:
            with self.gate.take(len(asks)):
                async with asyncio.timeout(self.settings.deadline_seconds):
                    return await all_of(asks)
        except TimeoutError:
            raise Problem(504, "the answer took longer than the server's deadline") from None
        finally:
            for ask in asks:
                if asyncio.iscoroutine(ask):
                    ask.close()  # those that the gate refused were never awaited


def seeds_for(seed: int | None, count: int) -> list[int]:
    """One seed for each of `count` answers: the first as given, fresh ones if none was given."""
    first = secrets.randbits(62) if seed is None else seed
    return [first if index == 0 else seed_from(first, index) for index in range(count)]
