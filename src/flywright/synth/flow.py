"""A flow: an async function step(record, ask) -> records, run over many records at once.

Each record ends as ok (with what it gave), dropped (with the reason) or failed (with the error, to
be tried again); never as None. Results stand in the order of the records that went in, whichever
call ends first, so that a resumed flow writes the same file as one that was never disturbed.
"""

import traceback
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from flywright.ask.budget import OF_RECORD, Spent
from flywright.ask.limits import RECENT, ordered
from flywright.ask.mixed import RECORD
from flywright.ask.protocol import AskError, Refused, Stopped, TooLong
from flywright.errors import FlywrightError

In = TypeVar("In")
Out = TypeVar("Out")
Ask = TypeVar("Ask")
COUNTED = ("in", "ok", "out", "failed")  # and "dropped: REASON", "left"


class Dropped(Exception):  # noqa: N818 - a drop is an ending, not an error
    """A step gives a record up, for the reason told; the flow goes on."""


Ending = list[Out] | Dropped | AskError


class Bugs:
    """Faults of the program that records have met lately, over all flows that share this."""

    def __init__(self):
        self._met: deque[bool] = deque(maxlen=RECENT)

    def note(self, met: bool) -> bool:
        """One record more has ended; True if more than half of the last RECENT met a fault."""
        self._met.append(met)
        return met and self._met.count(True) > RECENT / 2


def identity(record: Any) -> str:
    """What names a record in a flow: its id, or the words that it is."""
    return str(getattr(record, "id", None) or repr(record))


def count_ending(counts: dict[str, int], ending: Ending[Any]) -> None:
    """Add one ending to counts of in, ok, out, failed, "dropped: REASON", and left if it is."""
    for key in COUNTED:
        counts.setdefault(key, 0)
    counts["in"] += 1
    if isinstance(ending, list):
        counts["ok"] += 1
        counts["out"] += len(ending)
        return
    key = f"dropped: {ending}" if isinstance(ending, Dropped) else "failed"
    key = "left" if isinstance(ending, Stopped) else key
    counts[key] = counts.get(key, 0) + 1


def _fault(error: Exception) -> AskError:
    """A fault of the program as a record's end: what, and where."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    said = f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
    return AskError(said, fault="bug")


async def stream_flow(
    step: Callable[[In, Ask], Awaitable[Iterable[Out]]],
    records: Iterable[In],
    ask: Ask,
    limit: int = 64,
    bugs: Bugs | None = None,
) -> AsyncGenerator[tuple[Ending[Out], Spent], None]:
    """How each record ends and what was paid for it, in order, as they end; ask = who answers.

    records: any iterable, of any length; at most `limit` are at work. A step returns the records it
    made, raises `Dropped(reason)`, or lets an AskError pass: failed, but a record that is TooLong
    for a model, or Refused, is dropped. After one that was Stopped no more are begun. Any other
    error is a fault of the disk or of the program and is raised; with `bugs`, one of the program
    ends its record as failed, and many of them end the flow: Stopped. Close it (aclosing).
    """
    stopped = False

    async def end(record: In) -> tuple[Ending[Out], Spent]:
        nonlocal stopped
        spent = Spent()
        RECORD.set(identity(record))
        OF_RECORD.set(spent)
        try:
            ending: Ending[Out] = list(await step(record, ask)) or Dropped("gave nothing")
        except TooLong:
            ending = Dropped("too long for the model")
        except Refused:
            ending = Dropped("refused by the endpoint's filter")
        except (Dropped, AskError) as error:
            ending = error
        except FlywrightError:
            raise
        except Exception as error:
            if bugs is None:
                raise
            ending = _fault(error)
        met = isinstance(ending, AskError) and ending.fault == "bug"
        if bugs and not isinstance(ending, Stopped) and bugs.note(met):
            ending = Stopped(f"most records meet a fault of the program: {ending}", fault="bug")
        stopped = stopped or isinstance(ending, Stopped)
        return ending, spent

    def until_stopped() -> Iterable[In]:
        for record in records:
            if stopped:
                return
            yield record

    short = isinstance(records, Sequence) and len(records) <= limit  # no more workers than records
    work = list(records) if short else until_stopped()
    async with aclosing(ordered(end, work, limit)) as endings:
        async for ending in endings:
            yield ending
