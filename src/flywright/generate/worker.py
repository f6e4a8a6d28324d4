"""Threads that live while there is work, so that an event loop stays free while a model computes.

Callers put things into a queue and call `wake`; the thread calls `step` until `busy` says that
nothing is left, then ends. No thread idles, none outlives the work.
"""

import asyncio
import atexit
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Generic, TypeVar
from weakref import WeakSet

Item = TypeVar("Item")
Result = TypeVar("Result")


_AT_WORK: "WeakSet[threading.Thread]" = WeakSet()


@atexit.register
def _let_end() -> None:
    """A thread that has just handed over its last result ends before torch is torn down."""
    for thread in list(_AT_WORK):
        thread.join(timeout=2)


def settle(future: "Future[Result]", result: Result | BaseException) -> None:
    """Hand over a result or an error, unless the caller has gone."""
    with suppress(InvalidStateError):
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)


class Worker:
    """Runs `step()` in one thread while `busy()`; `wake()` starts it if it does not run."""

    def __init__(self, busy: Callable[[], bool], step: Callable[[], None]):
        self._busy = busy
        self._step = step
        self._lock = threading.Lock()
        self._running = False

    def wake(self) -> None:
        """Make sure that what was queued before this call will be worked on."""
        with self._lock:
            if not self._running:
                self._running = True
                thread = threading.Thread(target=self._run, name="generate", daemon=True)
                _AT_WORK.add(thread)
                thread.start()

    async def wait(self, future: "Future[Result]") -> Result:
        """Await a future that was queued; an await that is cancelled cancels the future too."""
        try:
            await asyncio.sleep(0)  # let callers of the same moment join the batch
            self.wake()
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.cancel()
            raise

    def _run(self) -> None:
        while True:
            with self._lock:  # a wake() comes before this look, or after it and finds no thread
                if not self._busy():
                    self._running = False
                    return
            self._step()


class Gathering(Generic[Item, Result]):
    """Answers single items by a function of many: all that wait at one time are one call.

    An error of the call goes to everyone who waited for it.
    """

    def __init__(self, compute: Callable[[list[Item]], list[Result]]):
        self._compute = compute
        self._waiting: deque[tuple[Item, Future[Result]]] = deque()
        self._worker = Worker(lambda: bool(self._waiting), self._step)

    async def ask(self, item: Item) -> Result:
        """The result of one item."""
        future: Future[Result] = Future()
        self._waiting.append((item, future))
        return await self._worker.wait(future)

    def _step(self) -> None:
        taken = [self._waiting.popleft() for _ in range(len(self._waiting))]
        wanted = [(item, future) for item, future in taken if not future.cancelled()]
        try:
            results = self._compute([item for item, _ in wanted])
        except Exception as error:
            results = [error] * len(wanted)
        for (_, future), result in zip(wanted, results, strict=True):
            settle(future, result)
