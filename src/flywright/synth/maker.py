"""The maker that every flow is handed: who answers, the settings, the seed, and the counts kept.

maker = Maker(Ledgered(completer, ledger), SynthSettings(), seed=1)
prompts = await open_qa(maker, await topics(maker))
maker.counts   # {"open_qa": {"in": 16, "ok": 15, "out": 30, "failed": 0, "dropped: ...": 1}}
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flywright.ask.protocol import Completer, Sampling
from flywright.files import seed_from
from flywright.progress import Tick, silent
from flywright.records import Conversation, Lineage, Prompt, record_id
from flywright.synth import parse
from flywright.synth.flow import Dropped, run_flow
from flywright.synth.settings import SynthSettings
from flywright.synth.wording import Template

In = TypeVar("In")
Out = TypeVar("Out")
TRIES = 2  # a list that cannot be read is asked for again


@dataclass
class Maker:
    """`ask` answers, `counts` collects how the records of each flow ended, by flow name."""

    ask: Completer
    settings: SynthSettings
    seed: int
    tick: Tick = silent
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    async def run(
        self,
        name: str,
        step: Callable[[In, Completer], Awaitable[Iterable[Out]]],
        records: Sequence[In],
    ) -> list[Out]:
        """The records that `step` makes of all records, counted under `name`.

        Raises FlywrightError if an answerer failed on any of them.
        """
        result = await run_flow(step, records, self.ask, name, self.settings.concurrency, self.tick)
        kept = self.counts.setdefault(name, {})
        for key, count in result.counts.items():
            kept[key] = kept.get(key, 0) + count
        return result.whole()

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
