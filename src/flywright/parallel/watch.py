"""What ends a rank that should not go on: a hang, a machine that is wanted back, an error.

with Preemption() as preemption:
    with Watchdog(1800).step(7): ...
    if preemption.wanted: ...          # all ranks have to agree: each hears its own signal
"""

import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from flywright.errors import FlywrightError

STDERR = 2


def _to_stderr(line: str) -> None:
    print(f"flywright: {line}", file=sys.stderr, flush=True)


class Watchdog:
    """Ends the process, status 1, with all threads' stacks on stderr, when a step hangs.

    A thread tells rank and step, then the stacks. Where that thread cannot run, because a call
    hangs that keeps Python's lock, faulthandler gives the stacks alone a little later.
    """

    def __init__(self, timeout_seconds: float, say: Callable[[str], None] = _to_stderr):
        self._timeout, self._say = timeout_seconds, say
        # ranks notice a hang one after another, and the first that ends takes the others along
        self._linger = min(5.0, timeout_seconds / 4)

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """What runs inside has `timeout_seconds`."""
        timer = threading.Timer(self._timeout, self._end, [number])
        timer.daemon = True
        faulthandler.dump_traceback_later(self._timeout + 2 * self._linger, exit=True, file=STDERR)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            faulthandler.cancel_dump_traceback_later()

    def _end(self, number: int) -> None:
        line = f"{_here()}: step {number} took longer than {self._timeout:g} s; its stacks:"
        _to_stderr(line)
        faulthandler.dump_traceback(file=STDERR)
        if self._say is not _to_stderr:
            self._say(line)
        record(line)
        time.sleep(self._linger)
        os._exit(1)


class Preemption:
    """`wanted` turns true when SIGUSR1 or SIGTERM comes: save, then raise Preempted.

    A context manager of the main thread; before and after it the signals do what they did.
    """

    SIGNALS = (signal.SIGUSR1, signal.SIGTERM)

    def __init__(self) -> None:
        self.wanted = False

    def __enter__(self) -> "Preemption":
        self._before = {number: signal.signal(number, self._hear) for number in self.SIGNALS}
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        self.wanted = True


def name_failure(error: Exception) -> FlywrightError:
    """What to raise for `error`: one line with rank and host, also in the file torchrun reads.

    An error of ours stays what it was, unnamed in a process alone; any other goes to stderr with
    its traceback first.
    """
    if isinstance(error, FlywrightError):
        if "RANK" in os.environ:
            error.args = (f"{_here()}: {error}",)
    else:
        traceback.print_exception(error)
        error = FlywrightError(f"{_here()}: {type(error).__name__}: {error}")
    record(str(error))
    return error


def _here() -> str:
    return f"rank {os.environ.get('RANK', 0)} on {socket.gethostname()}"


def record(line: str) -> None:
    """Put it where torchrun's summary tells it; torch's own recorder would add a traceback."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        said = {"message": line, "extraInfo": {"timestamp": str(int(time.time()))}}
        Path(path).write_text(json.dumps({"message": said}))
