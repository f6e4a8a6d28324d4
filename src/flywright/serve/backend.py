"""Who answers behind the wires: a completer, a scorer, and a bounded number of askers.

`Backend` is handed to every wire. It counts the answers asked for at this moment; beyond the bound
a request gets 429 and Retry-After at once instead of a place in an endless queue.
"""

import asyncio
import secrets
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from pydantic import Field

from flywright.ask import Completer, Completion, Sampling, Scorer
from flywright.files import seed_from
from flywright.records import Conversation
from flywright.serve.bodies import read_object
from flywright.serve.problems import Problem
from flywright.settings import Settings
from flywright.tokenizer import Tokenizer, chat


class ServeSettings(Settings):
    """How to serve. `context_tokens` is the model's; `max_pending` counts answers."""

    model_name: str = ""
    reward_name: str = ""
    context_tokens: int = Field(default=4096, ge=1)
    default_max_tokens: int = Field(default=1024, ge=1)
    max_pending: int = Field(default=256, ge=1)
    max_body_bytes: int = Field(default=4 << 20, ge=1)
    nemo_strict: bool = False


@dataclass
class Backend:
    """The answerers and what the wires need to know of them; `pending` counts answers under way."""

    completer: Completer
    tokenizer: Tokenizer
    scorer: Scorer | None
    settings: ServeSettings
    pending: int = 0

    @property
    def model_name(self) -> str:
        """The policy's name on the wire."""
        return self.settings.model_name or self.completer.model

    @property
    def reward_name(self) -> str:
        """The reward model's name on the wire; empty if none is served."""
        return "" if self.scorer is None else self.settings.reward_name or self.scorer.model

    async def read(self, request: Request) -> dict[str, Any]:
        """The request's JSON object, within the server's bound. Raises Problem."""
        return await read_object(request, self.settings.max_body_bytes)

    def prompt_ids(self, prompt: Conversation | str) -> list[int]:
        """Ids of a conversation, or of a raw prompt with its control texts."""
        if isinstance(prompt, str):
            return chat.raw_ids(self.tokenizer, prompt)
        return chat.prompt_ids(self.tokenizer, prompt)

    @contextmanager
    def places(self, count: int) -> Iterator[None]:
        """Hold `count` places; a request larger than the house may come alone. Raises 429."""
        if self.pending and self.pending + count > self.settings.max_pending:
            raise Problem(429, "the server is busy; try again", retry_after_seconds=1)
        self.pending += count
        try:
            yield
        finally:
            self.pending -= count

    async def complete(
        self, asks: Sequence[tuple[Conversation | str, Sampling]]
    ) -> list[Completion]:
        """Answers in order. Raises Problem 429 if the server is busy."""
        with self.places(len(asks)):
            return await asyncio.gather(*(self.completer.complete(*ask) for ask in asks))


def seeds_for(seed: int | None, count: int) -> list[int]:
    """One seed for each of `count` answers: the first as given, fresh ones if none was given."""
    first = secrets.randbits(62) if seed is None else seed
    return [first if index == 0 else seed_from(first, index) for index in range(count)]


Choice = dict[str, Any]


def choice(index: int, said: str, chat: bool, finish: str, logprobs: Any = None) -> Choice:
    """One answer as OpenAI's wire has it: a message in a chat, else a text."""
    body = {"message": {"role": "assistant", "content": said}} if chat else {"text": said}
    return {"index": index, **body, "logprobs": logprobs, "finish_reason": finish}


def reply(prefix: str, model: str, choices: list[Choice], read: int, written: int) -> Choice:
    """A whole answer of OpenAI's wire, with the tokens that were read and written."""
    chat = "message" in choices[0]
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        },
    }
