"""Several answerers at once, by weights: one of them for all that is asked for one record.

Mixed([(first, 3.0), (second, 1.0)], seed=1) is a Completer. Which one answers is drawn by a hash of
seed and record, so that it does not depend on what else is made, nor when; `model` is its name, for
ledgers and lineage. Outside of a record the first one answers.
"""

from collections.abc import Sequence
from contextvars import ContextVar

from flywright.ask.protocol import Completer, Completion, Sampling
from flywright.files import seed_from
from flywright.records import Conversation

RECORD: ContextVar[str] = ContextVar("RECORD", default="")  # what is being made in this task


class Mixed:
    """A Completer over several, with their weights."""

    def __init__(self, answerers: Sequence[tuple[Completer, float]], seed: int):
        self.all = [completer for completer, _ in answerers]
        self._weights = [weight for _, weight in answerers]
        self._seed = seed

    @property
    def now(self) -> Completer:
        """Who answers for the record that is being made."""
        if not RECORD.get() or len(self.all) == 1:
            return self.all[0]
        drawn = seed_from(self._seed, "answerer", RECORD.get()) / 2**63 * sum(self._weights)
        for completer, weight in zip(self.all, self._weights, strict=True):
            drawn -= weight
            if drawn < 0:
                return completer
        return self.all[-1]

    @property
    def model(self) -> str:
        """The name of who answers now."""
        return self.now.model

    async def complete(self, prompt: Conversation | str, sampling: Sampling) -> Completion:
        """The answer of the record's answerer."""
        return await self.now.complete(prompt, sampling)

    async def logprobs(self, context: str, continuations: list[str]) -> list[float]:
        """By the record's answerer."""
        return await self.now.logprobs(context, continuations)
