"""Threads that live while there is work, so that an event loop stays free while a model computes.

Callers put things into a queue and call `wake`; the thread calls `step` until `busy` says that
nothing is left, then ends. No thread idles, none outlives the work.
"""

import asyncio
import atexit
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TypeVar
from weakref import WeakSet

from flywright.generate.native import release_threads

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
                release_threads()
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
