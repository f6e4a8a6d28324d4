"""A flow: an async function step(record, ask) -> records, run over many records at once.

Each record ends as ok (with what it gave), dropped (with the reason) or failed (with the error, to
be tried again); never as None. Results stand in the order of the records that went in, whichever
call ends first, so that a resumed flow writes the same file as one that was never disturbed.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from flywright.ask.limits import gather
from flywright.ask.protocol import AskError, TooLong
from flywright.errors import FlywrightError
from flywright.progress import Tick, silent

In = TypeVar("In")
Out = TypeVar("Out")
Ask = TypeVar("Ask")


class Dropped(Exception):  # noqa: N818 - a drop is an ending, not an error
    """A step gives a record up, for the reason told; the flow goes on."""


@dataclass(frozen=True)
class FlowResult(Generic[Out]):
    """How each record of a flow ended, in the order in which they went in: with what it gave, with
    the Dropped that its step raised, or with an answerer's error."""

    name: str
    endings: Sequence[list[Out] | Dropped | AskError]

    @property
    def records(self) -> list[Out]:
        """All that was made, in order."""
        return [record for made in self.endings if isinstance(made, list) for record in made]

    @property
    def failed(self) -> list[AskError]:
        """The errors of the records that an answerer failed on."""
        return [ending for ending in self.endings if isinstance(ending, AskError)]

    @property
    def counts(self) -> dict[str, int]:
        """in, ok, out, failed, and "dropped: REASON" for each reason."""
        reasons = Counter(str(ending) for ending in self.endings if isinstance(ending, Dropped))
        return {
            "in": len(self.endings),
            "ok": sum(isinstance(ending, list) for ending in self.endings),
            "out": len(self.records),
            "failed": len(self.failed),
            **{f"dropped: {reason}": count for reason, count in sorted(reasons.items())},
        }

    def whole(self) -> list[Out]:
        """The records, if no record failed; else FlywrightError, so that nobody takes it for done.

        Replies that a ledger remembers are not paid for again when the flow is run again.
        """
        if self.failed:
            raise FlywrightError(
                f"{self.name}: {len(self.failed)} of {len(self.endings)} records failed, the first "
                f"with: {self.failed[0]}; run it again to try these again"
            )
        return self.records


async def run_flow(
    step: Callable[[In, Ask], Awaitable[Iterable[Out]]],
    records: Sequence[In],
    ask: Ask,
    name: str,
    limit: int = 64,
    tick: Tick = silent,
) -> FlowResult[Out]:
    """Run `step(record, ask)` over all records, at most `limit` at once; ask = who answers.

    A step returns the records it made, raises `Dropped(reason)`, or lets an AskError pass: failed,
    but a record that is TooLong for a model is dropped.
    Any other error is a fault of the program or of the disk and is raised.
    """

    async def end(record: In) -> list[Out] | Dropped | AskError:
        try:
            return list(await step(record, ask)) or Dropped("gave nothing")
        except TooLong:
            return Dropped("too long for the model")
        except (Dropped, AskError) as ending:
            return ending

    return FlowResult(name, await gather(end, records, limit, tick, name))
