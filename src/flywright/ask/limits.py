"""Limits on asking: how many at once, how long, how often again, and how much in all.

`ordered` and `gather` run work over items with bounded concurrency; `Limited` is a Completer that
adds a deadline, retries, a concurrency that feels its way (AIMD) and a budget to another one.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from anyio import CapacityLimiter

from flywright.ask.budget import FREE, Budget, Price
from flywright.ask.protocol import AskError, Completion, Sampling, Stopped
from flywright.files import seed_from
from flywright.progress import Tick, silent
from flywright.records import Conversation

Item = TypeVar("Item")
Result = TypeVar("Result")
SMOOTHED = 32  # tries over which the share of overloads is taken
MUCH = 0.15  # of them: below, they are no sign of too much asked
GROWTH = 0.05  # of a place, after a success, at least
RECENT = 20  # questions whose endings the error budget looks at
LOAD_SECONDS = 1.0  # between two looks at a server's load
FULL = 0.95  # share of a server's key-value cache above which it is asked less


async def ordered(
    work: Callable[[Item], Awaitable[Result]],
    items: Iterable[Item],
    limit: int = 64,
    window: int = 0,
) -> AsyncGenerator[Result, None]:
    """Results of `work` in the order of `items`, at most `limit` at once.

    At most `window` items (default 4 x limit) are begun and not yet handed out, so that memory does
    not grow with the items. The first error cancels the rest and is raised. Close it (aclosing).
    """
    waiting = enumerate(items)
    room = asyncio.Semaphore(window or 4 * limit)
    changed = asyncio.Event()
    results: dict[int, Result] = {}

    async def worker() -> None:
        while True:
            await room.acquire()
            index, item = next(waiting, (-1, None))
            if index < 0:
                room.release()
                return
            results[index] = await work(item)  # type: ignore[arg-type]
            changed.set()

    ended: list[asyncio.Task[None]] = []

    def end(task: asyncio.Task[None]) -> None:
        ended.append(task)
        changed.set()

    most = min(limit, len(items)) if isinstance(items, Sequence) else limit
    workers = [asyncio.create_task(worker()) for _ in range(most)]
    for task in workers:
        task.add_done_callback(end)
    turn, found = 0, 0
    try:
        while found < most or turn in results:
            changed.clear()
            for task in ended[found:]:
                task.result()
                found += 1
            while turn in results:
                yield results.pop(turn)
                room.release()
                turn += 1
            if found < most:
                await changed.wait()
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


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
    done = 0

    async def told(item: Item) -> Result:
        nonlocal done
        result = await work(item)
        done += 1
        tick(done, len(items), note)
        return result

    async with aclosing(ordered(told, items, limit, len(items) + limit)) as found:
        return [result async for result in found]


@dataclass(frozen=True)
class Load:
    """What a server tells of itself: requests that wait, and the share of its cache in use."""

    waiting: float
    cache_share: float

    @property
    def heavy(self) -> bool:
        """True if it should be asked less."""
        return self.waiting > 0 or self.cache_share > FULL


@dataclass(frozen=True)
class Patience:
    """How long one question may take, how often it is tried, and what many failures mean.

    deadline_seconds: with all retries, without waiting for a free place; try_seconds: one try.
    retries: how often a retryable AskError is tried again, 0.5 s, 1 s, 2 s ... apart, jittered, or
    as far apart as the answerer says. Once more than error_share of the last 20 questions have
    failed for good, asking pauses for pause_seconds, at most `pauses` times in a row; then Stopped
    is raised. error_share 1 = never.
    """

    deadline_seconds: float = 120.0
    try_seconds: float = 600.0
    retries: int = 5
    error_share: float = 1.0
    pause_seconds: float = 60.0
    pauses: int = 10


@dataclass(eq=False)
class Limited:
    """A Completer (or a Scorer, for LedgeredScorer) with a deadline, retries, adaptive concurrency
    and a budget.

    concurrency: how many calls may be in flight, at most and at first: one more (or a twentieth)
    after a round of successes, half where more than MUCH of the tries meet an overload (once for
    all the calls that met it), three quarters while `load` says that the server has enough.
    tell: hears of pauses.
    Raises AskError: retryable when late or out of retries; Stopped when the budget is spent or too
    many questions fail.
    """

    completer: Any
    patience: Patience = Patience()
    concurrency: int = 64
    budget: Budget = field(default_factory=Budget)
    price: Price = FREE
    load: Callable[[], Awaitable[Load | None]] | None = None
    tell: Callable[[str], None] = lambda _line: None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def __post_init__(self):
        self.model = self.completer.model
        self.calls = self.in_flight = 0
        self._most = self.concurrency
        self._room, self._overload = float(self._most), 0.0
        self._places = CapacityLimiter(self._most)
        self._halved = self._looked = self._opens = -1e9  # monotonic seconds
        self._endings: deque[bool] = deque(maxlen=RECENT)
        self._pauses = 0
        self._stopped: Stopped | None = None
        self._pressed = False
        self._looks: asyncio.Task[None] | None = None

    async def complete(self, prompt: Conversation | str, sampling: Sampling) -> Completion:
        """The answerer's reply within the limits."""
        return await self.within(lambda: self.put(prompt, sampling))

    async def put(self, prompt: Conversation | str, sampling: Sampling) -> Completion:
        """The answerer's reply, at once, paid for from the budget: for work done `within`."""
        reply = await self.completer.complete(prompt, sampling)
        self.budget.pay(reply.prompt_tokens, reply.completion_tokens, self.price)
        return reply

    async def logprobs(self, context: str, continuations: list[str]) -> list[float]:
        """The answerer's log-probabilities within the limits."""
        return await self.within(lambda: self.completer.logprobs(context, continuations))

    async def within(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """The result of a call within the limits; who failed waits through a pause, if one begins.

        Its place is taken until the call ends: with a ledger, until the reply is on the disk.
        """
        while True:
            try:
                result = await self._tried(call)
            except AskError as error:
                if isinstance(error, Stopped) or error.fault in ("too long", "refused"):
                    raise  # the record's own end
                self._endings.append(False)
                if not self._pause(error):
                    raise
            else:
                self._endings.append(True)
                self._pauses = 0
                return result

    async def _tried(self, call: Callable[[], Awaitable[Result]]) -> Result:
        left_seconds = self.patience.deadline_seconds
        attempt = 0
        while True:
            await self._open()
            async with self._places:
                if self._stopped is not None:  # nobody tries again what the others gave up
                    raise self._stopped
                started = time.monotonic()
                try:
                    return await self._attempt(call, left_seconds, started)
                except AskError as error:
                    pause_seconds = error.retry_after_seconds or self._pause_seconds(attempt)
                    left_seconds -= time.monotonic() - started + pause_seconds
                    over = attempt == self.patience.retries or left_seconds <= 0
                    if not error.retryable or over:
                        raise
            await self.sleep(pause_seconds)
            attempt += 1

    async def _attempt(
        self, call: Callable[[], Awaitable[Result]], seconds: float, started: float
    ) -> Result:
        """One try in a place already taken; the number of places follows how it ends."""
        self.budget.check()
        self._look(started)
        self.calls += 1
        self.in_flight += 1
        overloaded = False
        seconds = min(seconds, self.patience.try_seconds)
        try:
            async with asyncio.timeout(seconds):
                return await call()
        except TimeoutError:
            overloaded = True
            message = f"{self.model}: no answer within {seconds:.3g} s"
            raise AskError(message, retryable=True, fault="timeout") from None
        except AskError as error:
            overloaded = error.retryable and error.fault != "malformed"
            raise
        finally:
            self.in_flight -= 1
            self._adapt(overloaded, started)

    def _adapt(self, overloaded: bool, started: float) -> None:
        """A place more after a round of successes; half of them where many calls fail, for the
        first that was begun since the last halving."""
        self._overload += (overloaded - self._overload) / SMOOTHED
        if not overloaded and not self._pressed:
            self._room = min(float(self._most), self._room + max(GROWTH, 1 / self._room))
        elif overloaded and self._overload > MUCH and started >= self._halved:
            self._room = max(1.0, self._room / 2)
            self._halved = time.monotonic()
        if int(self._room) != self.concurrency:
            self.concurrency = self._places.total_tokens = int(self._room)

    def _look(self, now: float) -> None:
        """Ask the server for its load now and then, beside the calls."""
        if self.load is not None and now - self._looked >= LOAD_SECONDS:
            self._looked = now
            self._looks = asyncio.ensure_future(self._heed(self.load))

    async def _heed(self, load: Callable[[], Awaitable[Load | None]]) -> None:
        found = None
        with suppress(AskError):
            found = await load()
        if found is None:  # it does not tell
            self._looked, self._pressed = time.monotonic() + 60, False
            return
        self._pressed = found.heavy
        if found.heavy:
            self._room = max(1.0, min(self._room, float(self.in_flight)) * 0.75)
            self.concurrency = self._places.total_tokens = int(self._room)

    async def _open(self) -> None:
        """Wait until a pause is over."""
        while (left := self._opens - time.monotonic()) > 0:
            await self.sleep(left)

    def _pause(self, error: AskError) -> bool:
        """True if so many questions have failed that all wait now, and this one is tried again.

        Raises Stopped once that did not help, and at once where asking again cannot.
        """
        if error.retryable and self._opens > time.monotonic():
            return True
        failed = self._endings.count(False)
        few = len(self._endings) < RECENT or failed / RECENT <= self.patience.error_share
        if few and not (self._pauses and error.retryable):  # after a pause, one is enough
            return False
        said = f"{self.model}: {failed} of {len(self._endings)} questions failed"
        said = f"{said} ({error.fault}: {error})"
        if self._pauses >= self.patience.pauses or not error.retryable:
            told = f"{said}; the same command goes on from here"
            self._stopped = self._stopped or Stopped(told, fault=error.fault)
            raise self._stopped
        self._pauses += 1
        self._room = 1.0
        self.concurrency = self._places.total_tokens = 1
        self._endings.clear()
        self._opens = time.monotonic() + self.patience.pause_seconds
        self.tell(f"{said}; asking again in {self.patience.pause_seconds:g} s")
        return True

    def _pause_seconds(self, attempt: int) -> float:
        """0.5 s doubling each attempt, spread by half; the spread is seeded, no global RNG."""
        spread = seed_from(self.model, self.calls, attempt) / 2**63
        return 0.5 * 2**attempt * (0.75 + 0.5 * spread)
