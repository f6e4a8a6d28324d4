"""What every answering engine does before it computes: prompts to ids, and what is refused."""

import asyncio
from collections.abc import Sequence

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
