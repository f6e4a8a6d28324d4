"""The maker that every flow is handed: who answers, the settings, the seed, and the counts kept.

maker = Maker(Ledgered(completer, ledger), SynthSettings(), seed=1)
prompts = await open_qa(maker, await topics(maker))
maker.counts   # {"open_qa": {"in": 16, "ok": 15, "out": 30, "failed": 0, "dropped: ...": 1}}
"""

import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from flywright.ask.budget import Costs
from flywright.ask.crew import Crew
from flywright.ask.limits import gather
from flywright.ask.protocol import AskError, Completer, Sampling, Stopped
from flywright.errors import FlywrightError
from flywright.files import digest, seed_from
from flywright.progress import Tick, silent
from flywright.records import Conversation, Lineage, Prompt, Record, record_id
from flywright.synth import parse
from flywright.synth.flow import (
    Bugs,
    Dropped,
    Ending,
    count_ending,
    identity,
    stream_flow,
)
from flywright.synth.settings import SynthSettings
from flywright.synth.wording import Template

In = TypeVar("In")
Out = TypeVar("Out")
Step = Callable[[In, Completer], Awaitable[Iterable[Out]]]
TRIES = 2  # a list that cannot be read is asked for again
SHARD = 64  # records that one of several workers takes at once
SHARDS_AT_ONCE = 3  # so that none waits for the slowest record of another


class Failure(Record):
    """A record that failed: to be tried again by the same command. `fault` as in AskError."""

    id: str
    flow: str
    fault: str
    message: str


@dataclass
class Maker:
    """`ask` answers, `counts` collects how the records of each flow ended, by flow name.

    failed: where it is a list, failures are put there and the flow goes on without these records;
    else they are raised. stopped: why no more records were begun. crew: who shares the work; all
    of them come to the same records, since they share a ledger. costs: tokens paid for a record
    by flow, bugs: faults of the program; both over all that share them.
    """

    ask: Completer
    settings: SynthSettings
    seed: int
    tick: Tick = silent
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    failed: list[Failure] | None = None
    stopped: Stopped | None = None
    crew: Crew | None = None
    costs: dict[str, Costs] = field(default_factory=dict)
    bugs: Bugs = field(default_factory=Bugs)

    async def run(self, name: str, step: Step[In, Out], records: Sequence[In]) -> list[Out]:
        """The records that `step` makes of all records, counted under `name`.

        Raises FlywrightError if an answerer failed on any of them, unless `failed` takes them.
        """
        counts = self.counts.setdefault(name, dict.fromkeys(("in", "ok", "out", "failed"), 0))
        done = itertools.count(1)

        def told() -> None:
            self.tick(next(done), len(records), name)

        if self.crew is not None and not self.crew.holds and len(records) > 1:
            endings = await self._shared(self.crew, name, step, records, told)
        else:
            endings = [ending async for ending in self._alone(name, step, records, told)]
        for ending in endings:
            count_ending(counts, ending)
        return self._kept(name, endings, records)

    async def _alone(
        self, name: str, step: Step[In, Out], records: Sequence[In], told: Callable[[], None]
    ) -> AsyncGenerator[Ending[Out], None]:
        costs = self.costs.setdefault(name, Costs())
        limit, bugs = self.settings.concurrency, self.bugs if self.failed is not None else None
        async with aclosing(stream_flow(step, records, self.ask, limit, bugs)) as stream:
            async for ending, spent in stream:
                if spent.calls:
                    costs.add(spent.tokens)
                told()
                yield ending

    async def _shared(
        self,
        crew: Crew,
        name: str,
        step: Step[In, Out],
        records: Sequence[In],
        told: Callable[[], None],
    ) -> list[Ending[Out]]:
        """Shard by shard, those first that no other worker has; what others make is replayed."""
        shards = [records[start : start + SHARD] for start in range(0, len(records), SHARD)]

        async def make(number: int, wait: bool) -> list[Ending[Out]] | None:
            what = digest(name, [identity(record) for record in shards[number]])
            async with crew.lease(what, wait) as held:
                if not held:
                    return None
                stream = self._alone(name, step, shards[number], told)
                return [ending async for ending in stream]

        found: dict[int, list[Ending[Out]] | None] = {}
        for wait in (False, True):
            some = [number for number in crew.order(len(shards)) if found.get(number) is None]
            found |= zip(
                some, await gather(partial(make, wait=wait), some, SHARDS_AT_ONCE), strict=True
            )
        return [ending for number in range(len(shards)) for ending in found[number] or ()]

    def _kept(self, name: str, endings: Sequence[Ending[Out]], records: Sequence[In]) -> list[Out]:
        """What was made; what failed is noted, or raised so that nobody takes it for done."""
        errors = [ending for ending in endings if isinstance(ending, AskError)]
        if errors and self.failed is None:
            raise FlywrightError(
                f"{name}: {len(errors)} of {len(endings)} records failed, the first with: "
                f"{errors[0]}; run it again to try these again"
            )
        for record, ending in zip(records, endings, strict=False):
            if isinstance(ending, Stopped):
                self.stopped = ending
            elif isinstance(ending, AskError) and self.failed is not None:
                told = {"flow": name, "fault": ending.fault, "message": str(ending)}
                self.failed.append(Failure(id=identity(record), **told))
        return [record for made in endings if isinstance(made, list) for record in made]

    async def unless_stopped(self, flow: Awaitable[list[Out]]) -> list[Out]:
        """What a flow makes; nothing if it is stopped before its first records."""
        try:
            return await flow
        except Stopped as stopped:
            if self.failed is None:
                raise
            self.stopped = stopped
            return []

    def sampling(self, tokens: int, *parts: Any, greedy: bool = False) -> Sampling:
        """The settings' sampling, its seed a hash of the run's seed and of what is asked for."""
        if greedy:
            return Sampling(max_tokens=tokens)
        return Sampling(
            max_tokens=tokens,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            seed=seed_from(self.seed, *parts),
        )

    async def ask_list(
        self, template: Template, count: int, **values: Any
    ) -> tuple[list[str], Sampling]:
        """`count` elements from a template that asks for a list, and the sampling that gave them.

        Asks up to TRIES times, with another seed each. Raises Dropped.
        """
        prompt = template.fill(count=count, **values)
        reason = Dropped("never asked")
        for attempt in range(TRIES):
            sampling = self.sampling(self.settings.list_tokens, prompt.last, attempt)
            reply = await self.ask.complete(prompt, sampling)
            try:
                return parse.numbered(reply.text, count, reply.finish == "length"), sampling
            except Dropped as drop:
                reason = drop
        raise reason

    async def say(
        self, completer: Completer, conversation: Conversation, *parts: Any, greedy: bool = False
    ) -> tuple[str, Sampling]:
        """One whole reply, and the sampling that gave it. Raises Dropped if it is empty or cut."""
        sampling = self.sampling(self.settings.answer_tokens, *parts, greedy=greedy)
        reply = await completer.complete(conversation, sampling)
        return parse.spoken(reply.text, reply.finish == "length"), sampling

    def lineage(
        self,
        source: str,
        template: Template | None = None,
        sampling: Sampling | None = None,
        parents: tuple[str, ...] = (),
        **more: Any,
    ) -> Lineage:
        """Where a record of this maker comes from."""
        return Lineage(
            source=source,
            model=more.pop("model", self.ask.model),
            sampling=sampling.key() if sampling else "",
            template=template.hash if template else "",
            seed=self.seed,
            parents=parents,
            **more,
        )

    def prompt(self, source: str, text: str, lineage: Lineage) -> Prompt:
        """A single-turn prompt of the family `source`."""
        return Prompt(
            id=record_id(source, text, lineage.parents),
            conversation=Conversation.of(text),
            task=source,
            lineage=lineage,
        )
