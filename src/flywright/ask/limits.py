"""Limits on asking: how many at once, how long, how often again, and how much in all.

`gather` runs work over items with bounded concurrency; `Limited` is a Completer that adds a
deadline, retries and a concurrency that feels its way (AIMD) to another one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from anyio import CapacityLimiter

from flywright.ask.protocol import AskError, Completer, Completion, Sampling
from flywright.files import seed_from
from flywright.progress import Tick, silent
from flywright.records import Conversation

Item = TypeVar("Item")
Result = TypeVar("Result")


async def gather(
    work: Callable[[Item], Awaitable[Result]],
    items: Sequence[Item],
    limit: int = 64,
    tick: Tick = silent,
    note: str = "",
) -> list[Result]:
    """Results of `work` in the order of `items`, at most `limit` at once.

    The first error cancels the rest and is raised. `tick(done, total, note)` follows each result.
    """
    results: dict[int, Result] = {}
    waiting = iter(enumerate(items))

    async def worker() -> None:
        for index, item in waiting:
            results[index] = await work(item)
            tick(len(results), len(items), note)

    workers = [asyncio.create_task(worker()) for _ in range(min(limit, len(items)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[index] for index in range(len(items))]


@dataclass(eq=False)
class Limited:
    """A Completer with a deadline, retries, adaptive concurrency and a budget.

    deadline_seconds: for one question with all its retries, without waiting for a free place.
    retries: how often a retryable AskError is tried again, 0.5 s, 1 s, 2 s ... apart, jittered, or
    as far apart as the answerer says. concurrency: how many calls may be in flight, at most and at
    first. max_calls, max_tokens: the budget in all, 0 = none.
    Raises AskError: retryable when late or out of retries; not retryable when the budget is spent.
    """

    completer: Completer
    deadline_seconds: float = 120.0
    retries: int = 5
    concurrency: int = 64
    max_calls: int = 0
    max_tokens: int = 0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def __post_init__(self):
        self.model = self.completer.model
        self.calls = self.tokens = 0
        self._most = self.concurrency
        self._room = float(self._most)  # one more after a round of successes, half after a failure
        self._places = CapacityLimiter(self._most)

    async def complete(self, prompt: Conversation | str, sampling: Sampling) -> Completion:
        """The answerer's reply within the limits."""
        reply = await self._insist(lambda: self.completer.complete(prompt, sampling))
        self.tokens += reply.prompt_tokens + reply.completion_tokens
        return reply

    async def logprobs(self, context: str, continuations: list[str]) -> list[float]:
        """The answerer's log-probabilities within the limits."""
        return await self._insist(lambda: self.completer.logprobs(context, continuations))

    async def _insist(self, call: Callable[[], Awaitable[Result]]) -> Result:
        left_seconds = self.deadline_seconds
        attempt = 0
        while True:
            async with self._places:
                started = time.monotonic()
                try:
                    return await self._attempt(call, left_seconds)
                except AskError as error:
                    pause_seconds = error.retry_after_seconds or self._pause_seconds(attempt)
                    left_seconds -= time.monotonic() - started + pause_seconds
                    if not error.retryable or attempt == self.retries or left_seconds <= 0:
                        raise
            await self.sleep(pause_seconds)
            attempt += 1

    async def _attempt(self, call: Callable[[], Awaitable[Result]], seconds: float) -> Result:
        """One try in a place already taken; the number of places follows how it ends."""
        self._count_call()
        overloaded = False
        try:
            async with asyncio.timeout(seconds):
                return await call()
        except TimeoutError:
            overloaded = True
            limit = f"{self.deadline_seconds:g} s"
            raise AskError(f"{self.model}: no answer within {limit}", retryable=True) from None
        except AskError as error:
            overloaded = error.retryable
            raise
        finally:
            grown = min(float(self._most), self._room + 1 / self._room)
            self._room = max(1.0, self._room / 2) if overloaded else grown
            self.concurrency = self._places.total_tokens = int(self._room)

    def _count_call(self) -> None:
        if self.max_calls and self.calls >= self.max_calls:
            raise AskError(f"{self.model}: the budget of {self.max_calls} calls is spent")
        if self.max_tokens and self.tokens >= self.max_tokens:
            raise AskError(f"{self.model}: the budget of {self.max_tokens} tokens is spent")
        self.calls += 1

    def _pause_seconds(self, attempt: int) -> float:
        """0.5 s doubling each attempt, spread by half; the spread is seeded, no global RNG."""
        spread = seed_from(self.model, self.calls, attempt) / 2**63
        return 0.5 * 2**attempt * (0.75 + 0.5 * spread)
