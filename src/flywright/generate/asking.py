"""What every answering engine does before it computes: prompts to ids, and what is refused."""

import asyncio
from collections.abc import Sequence
from typing import Any

from flywright.ask.protocol import AskError, Completion, Ids, Sampling, TooLong
from flywright.generate.answer import Answer, Tell
from flywright.records import Conversation
from flywright.tokenizer import Tokenizer, chat

Prompt = Conversation | str | Ids


class Asking:
    """A Reader's common half; `_read(ids, wanted, top)` is the other's.

    `model` names it for ledgers and lineage; `context_tokens` holds a prompt with its answer.
    """

    def __init__(self, tokenizer: Tokenizer, model: str, context_tokens: int):
        self.tokenizer, self.model, self.context_tokens = tokenizer, model, context_tokens

    async def read(self, ids: Sequence[int], top: int = 0) -> Completion:
        """How likely each of `ids` is after those before it (ask.Reader)."""
        return await self._likelihood(ids, 0, top)

    async def logprobs(self, context: str, continuations: list[str]) -> list[float]:
        """Sum of natural log-probabilities of each continuation after the raw context.

        Context and continuation are encoded apart, as when the model goes on from a prompt; an
        empty context is the start of a document. Raises TooLong where the two do not fit.
        """
        before = self._raw_ids(context)
        texts = [chat.raw_ids(self.tokenizer, text, True) for text in continuations]
        reads = [self._likelihood([*before, *after], len(before) - 1, 0) for after in texts]
        return [sum(one.logprobs) for one in await asyncio.gather(*reads)]

    async def _likelihood(self, ids: Sequence[int], wanted: int, top: int) -> Completion:
        """Log-probabilities of the ids from place `wanted` + 1 on."""
        self._fits(len(ids), self.context_tokens)
        self._known(ids)
        if wanted >= len(ids) - 1:
            return Completion("", token_ids=tuple(ids), prompt_tokens=len(ids))
        return await self._read(ids, wanted, top)

    async def _read(self, ids: Sequence[int], wanted: int, top: int) -> Completion:
        raise NotImplementedError

    async def _pick(self, ids: Sequence[int], tokens: Sequence[int]) -> list[float]:
        """Log-probabilities of each of `tokens` right after the ids."""
        reads = await asyncio.gather(*(self._read([*ids, t], len(ids) - 1, 0) for t in tokens))
        return [one.logprobs[0] for one in reads]

    def _raw_ids(self, text: str) -> list[int]:
        # documents end with eos, so it is what stands before the first word of a text
        return chat.raw_ids(self.tokenizer, text) or [self.tokenizer.eos_id]

    def _ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, Conversation):
            return chat.prompt_ids(self.tokenizer, prompt)
        if isinstance(prompt, str):
            return self._raw_ids(prompt)
        self._known(prompt)
        return list(prompt) or [self.tokenizer.eos_id]

    def _known(self, ids: Sequence[int]) -> None:
        most = self.tokenizer.vocab_size
        if ids and not (min(ids) >= 0 and max(ids) < most):
            wrong = next(one for one in ids if not 0 <= one < most)
            raise AskError(f"token {wrong} is not in the vocabulary of {most}")

    def _fits(self, count: int, room: int) -> None:
        if count > room:
            raise TooLong(f"the prompt is {count} tokens, the model has room for {room}")

    def _answer(self, prompt: Prompt, sampling: Sampling, tell: Tell | None = None) -> Answer:
        """The request, with what it may draw. Raises AskError and TooLong."""
        ids = self._ids(prompt)
        self._fits(len(ids), self.context_tokens - 1)
        if sampling.max_tokens < 1:
            raise AskError(f"max_tokens is {sampling.max_tokens}, expected at least 1")
        limit = min(sampling.max_tokens, self.context_tokens - len(ids))
        return Answer(self.tokenizer, ids, sampling, limit, tell)


class Cutting:
    """A Completer over an engine that asks as lm-evaluation-harness asks, token for token.

    A raw text that leaves no room for the answer, or for a continuation, loses its beginning; and
    context and continuation are encoded as one text, the blanks between them at the continuation.
    """

    def __init__(self, engine: Any):
        self._engine, self.model = engine, str(engine.model)

    async def complete(self, prompt: Conversation | str, sampling: Sampling) -> Completion:
        """The answer to a conversation as it is, or the continuation of a raw prompt's end.

        Raises AskError where `max_tokens` alone fill the context.
        """
        engine = self._engine
        if isinstance(prompt, Conversation):
            return await engine.complete(prompt, sampling)
        room = engine.context_tokens - sampling.max_tokens
        if room < 1:
            said = f"max_tokens {sampling.max_tokens} fill the context of {engine.context_tokens}"
            raise TooLong(said)
        return await engine.complete(tuple(engine._raw_ids(prompt)[-room:]), sampling)

    async def logprobs(self, context: str, continuations: list[str]) -> list[float]:
        """Sum of natural log-probabilities of each continuation after the context."""
        engine = self._engine
        bare = context.rstrip()
        before = engine._raw_ids(bare)
        skip = len(before) if bare else 0
        blanks = context[len(bare) :]
        texts = [engine._raw_ids(bare + blanks + text)[skip:] for text in continuations]
        room = engine.context_tokens + 1  # the last token is not read itself
        if all(len(after) == 1 for after in texts):
            ids = before[1 - room :]
            return await engine._pick(ids, [after[0] for after in texts])
        asked = [([*before, *after][-room:], len(after)) for after in texts]
        reads = [engine._read(ids, max(len(ids) - size - 1, 0), 0) for ids, size in asked]
        return [sum(one.logprobs) for one in await asyncio.gather(*reads)]
