"""Many processes at one dataset: who is alive, who works at what, and what all have spent.

    with Crew(folder) as crew:
        async with crew.lease("shard 12"):   # nobody else's while it is held
            ...

A lease is a file that names its holder. A worker shows that it lives by a counter in a file of its
own; whoever sees it stand still for stale_seconds by its own clock (or finds that a process of the
same machine is gone) takes its leases over. Leases save calls that two would pay for; they are not
what keeps records right: replies come from the ledger, and files are renamed into place whole.
"""

import asyncio
import itertools
import json
import os
import platform
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path

from flywright.ask.budget import Budget, Spent
from flywright.errors import FlywrightError
from flywright.files import named_disk_errors, write_json

GOLDEN = 0.6180339887  # its multiples spread the workers evenly, however many there are
_HOLDS: ContextVar[bool] = ContextVar("_HOLDS", default=False)  # a lease, in this task


class Crew(AbstractContextManager["Crew"]):
    """This process among the workers of `folder`; it beats while it is open.

    budget: kept up with what the others, and earlier runs, have spent. number: the worker's, so
    that each begins elsewhere. refresh: called when a lease is taken, to see what the others made.
    parent: a process id; where that process is gone, this one ends.
    """

    def __init__(
        self,
        folder: Path,
        budget: Budget | None = None,
        number: int = 0,
        stale_seconds: float = 20.0,
        parent: int = 0,
    ):
        self.number = number
        self.refresh: Callable[[], None] = lambda: None
        self.name = f"{platform.node()}:{os.getpid()}:{time.time_ns():x}"
        self.budget = budget or Budget()
        self._stale_seconds, self._parent = stale_seconds, parent
        self._leases, self._workers = folder / "leases", folder / "workers"
        with named_disk_errors(folder):
            self._leases.mkdir(parents=True, exist_ok=True)
            self._workers.mkdir(exist_ok=True)
        self.began = 0.0
        self._beats = itertools.count(1)
        self._seen: dict[str, tuple[str, float]] = {}  # of a holder: its beat, and since when
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> "Crew":
        self.beat()
        self.began = (self._workers / f"{self.name}.json").stat().st_mtime  # by the disk's clock
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()
        self.beat()  # what was spent at the end

    def beat(self) -> None:
        """Show that this worker lives and what it has spent; learn what the others have."""
        own = self._workers / f"{self.name}.json"
        write_json(own, {"beat": next(self._beats), **asdict(self.budget.mine)})
        others = Spent()
        for path in self._workers.glob("*.json"):
            if path != own:
                with suppress(OSError, ValueError, KeyError):
                    told = json.loads(path.read_bytes())
                    others.add(told["tokens"], told["money"], told["calls"])
        self.budget.others = others

    def _live(self) -> None:
        while not self._over.wait(self._stale_seconds / 8):
            if self._parent and os.getppid() != self._parent:
                os._exit(1)
            with suppress(FlywrightError):  # a full disk is told of by the work itself
                self.beat()

    def take(self, what: str) -> bool:
        """True if the lease on `what` is this worker's now."""
        path = self._leases / what
        with named_disk_errors(path):
            for _ in range(2):
                try:
                    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                except FileExistsError:
                    if not self._taken_from_the_dead(path):
                        return False
                    continue
                os.write(handle, self.name.encode())
                os.close(handle)
                return True
        return False

    def give(self, what: str) -> None:
        """Give a lease back, if it was not taken over."""
        path = self._leases / what
        with suppress(FileNotFoundError):
            if path.read_text() == self.name:
                path.unlink()

    def _taken_from_the_dead(self, path: Path) -> bool:
        """Remove a lease whose holder has stopped; False if it has not, or another was faster."""
        doomed = path.with_name(f".{path.name}.{self.name}")
        try:
            holder = path.read_text()
            if not self._is_stale(holder, path):
                return False
            path.rename(doomed)
        except FileNotFoundError:
            return False  # given back, or taken, just now
        if doomed.read_text() != holder:  # it was taken and made anew just now: put it back
            with suppress(FileExistsError):
                os.link(doomed, path)
            holder = ""
        doomed.unlink()
        return bool(holder)

    def _is_stale(self, holder: str, path: Path) -> bool:
        """True if the holder of a lease has stopped."""
        machine, _, rest = holder.partition(":")
        if machine == platform.node() and rest and not _runs(int(rest.partition(":")[0])):
            return True
        beat = ""
        with suppress(OSError):
            beat = (self._workers / f"{holder}.json").read_text()
        known = holder or str(path)
        if self._seen.get(known, ("never",))[0] != beat:
            self._seen[known] = (beat, time.monotonic())
        return time.monotonic() - self._seen[known][1] > self._stale_seconds

    @property
    def holds(self) -> bool:
        """True in a task that holds a lease."""
        return _HOLDS.get()

    def order(self, count: int) -> list[int]:
        """0 .. count - 1, begun elsewhere by each worker."""
        start = int(self.number * GOLDEN % 1 * count)
        return [*range(start, count), *range(start)]

    @asynccontextmanager
    async def lease(self, what: str, wait: bool = True) -> AsyncIterator[bool]:
        """Hold `what`, as soon as nobody else does; False if it is not to wait, and somebody does.

        False within a lease too: what this task does there is nobody else's anyway.
        """
        if self.holds:
            yield False
            return
        pause_seconds = 0.01
        while not (taken := self.take(what)) and wait:
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(0.5, pause_seconds * 1.5)
        if not taken:
            yield False
            return
        self.refresh()
        held = _HOLDS.set(True)
        try:
            yield True
        finally:
            _HOLDS.reset(held)
            self.give(what)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
