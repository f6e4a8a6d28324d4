"""The synthetic-data flows on the user's own files: `flywright synth FLOW SETTINGS.toml`.

What a flow reads, who answers it, and the table of flows, one entry a flow: `Whole` makes all its
records in one go; `Each` makes them from records of `data`, some at a time, so that millions pass.
How they are run, by how many workers and into which files, is in flow_run.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from flywright.ask import Completer, Ledger, Ledgered, LedgeredScorer, Limited, Mixed, Scorer
from flywright.errors import UserError
from flywright.recipe.flow_extras import EXTRAS, ExtraSettings, told_of_judges
from flywright.recipe.prompt_flows import PROMPT_FLOWS, Given, PromptFlowSettings
from flywright.recipe.settings import GeneratorSettings
from flywright.records import Comparison, Dialogue, Document, Prompt, Record, read_jsonl
from flywright.sandbox import Sandbox
from flywright.settings import Settings
from flywright.synth import GeneticSettings, Maker, SynthSettings, filters, prompts, topics
from flywright.synth.comparisons import Judges, comparisons
from flywright.synth.dialogues import dialogues
from flywright.synth.genetic import genetic


class AnswererSettings(GeneratorSettings):
    """One of those who answer: its share of the records, its price, how much it is asked at once.

    A server that is vLLM's is asked less while it tells of requests that wait.
    """

    weight: float = Field(default=1.0, gt=0)
    wire: Literal["openai", "nemo"] = Field(default="openai", description="nemo: PUT /generate")
    concurrency: int = Field(default=64, ge=1, description="most calls in flight, a worker")
    prompt_price: float = Field(default=0.0, ge=0, description="money for a million tokens")
    answer_price: float = Field(default=0.0, ge=0)


class PatienceSettings(Settings):
    """How long endpoints are waited for, and what many failures mean (ask.Patience)."""

    deadline_seconds: float = Field(default=900.0, gt=0, description="a call with all its retries")
    try_seconds: float = Field(default=300.0, gt=0, description="one try of it")
    retries: int = Field(default=5, ge=0)
    error_share: float = Field(
        default=0.5, gt=0, le=1, description="of 20 calls; pause beyond; 1 = never"
    )
    pause_seconds: float = Field(default=60.0, gt=0)
    pauses: int = Field(default=10, ge=0, description="in a row before the flow stops; 0 = at once")


class BudgetSettings(Settings):
    """What a dataset may cost over all its runs, and how long one run may take; 0 = no limit."""

    tokens: int = Field(default=0, ge=0)
    money: float = Field(default=0.0, ge=0)
    seconds: float = Field(default=0.0, ge=0)


class FlowFile(ExtraSettings):
    """What a flow reads and writes, and who answers (URLs or weights folders)."""

    generator: AnswererSettings | list[AnswererSettings]
    reward: str = Field(default="", description="a reward model's folder, or a server's URL")
    reward_at_endpoint: str = Field(default="", description="the reward model's name there")
    reward_api_key_variable: str = Field(default="", description="environment variable of its key")
    policy: Path | None = Field(default=None, description="comparisons: a second answerer")
    topics: list[str] = Field(default=[])
    seed: int = 1
    shard_records: int = Field(default=200, ge=1, description="of data, at once")
    patience: PatienceSettings = PatienceSettings()
    budget: BudgetSettings = BudgetSettings()
    synth: SynthSettings = SynthSettings()
    prompts: PromptFlowSettings = PromptFlowSettings()
    genetic: GeneticSettings = GeneticSettings()


@dataclass
class Job:
    """A flow's settings, and what it works with, opened once."""

    own: FlowFile
    ledger: Ledger
    answerers: Mixed
    limited: Callable[..., Limited]  # of one who answers, or rates

    @cached_property
    def scorer(self) -> Scorer | None:
        """The reward model, if there is one; the ledger remembers its scores."""
        if not self.own.reward:
            return None
        if self.own.reward.startswith(("http://", "https://")):
            from flywright.serve.client import HttpScorer

            return LedgeredScorer(self.limited(HttpScorer(self.own.reward)), self.ledger)
        from flywright.recipe.answerers import scorer_of

        own = self.own
        key = own.reward_api_key_variable
        return LedgeredScorer(scorer_of(own.reward, own.reward_at_endpoint, key), self.ledger)

    @cached_property
    def runner(self) -> Sandbox:
        """Runs code."""
        return Sandbox(self.own.sandbox)

    @cached_property
    def each(self) -> dict[str, Completer]:
        """All who answer by name, the policy among them."""
        named = {who.model: who for who in self.answerers.all}
        if self.own.policy is not None:
            from flywright.recipe.answerers import engine

            named["policy"] = Ledgered(engine(self.own.policy), self.ledger)
        return named


@dataclass(frozen=True)
class Whole:
    """A flow that makes all its records in one go."""

    make: Callable[[Maker, Job], Awaitable[list[Any]]]


@dataclass(frozen=True)
class Each:
    """A flow that makes records from those of `data`, whatever others there are."""

    kind: type[Record]
    make: Callable[[Maker, Job, list[Any]], Awaitable[list[Any]]]
    after: Callable[[FlowFile], None] | None = None  # once all records stand in `out`


async def _prompts(maker: Maker, job: Job) -> list[Prompt]:
    own = job.own
    subjects = await topics.topics(maker, own.topics)
    flows = [
        prompts.open_qa(maker, subjects),
        prompts.writing(maker, subjects),
        prompts.math(maker),
        prompts.coding(maker),
    ]
    if own.data is not None:
        flows.append(prompts.closed_qa(maker, read_jsonl(own.data, Document)))
    made = [prompt for flow in flows for prompt in await maker.unless_stopped(flow)]
    distinct, _ = filters.near(filters.exact(made)[0], own.synth.near_duplicate)
    return distinct


def _prompt_flow(make: Callable[[Maker, Given], Awaitable[list[Any]]]) -> Whole:
    def made(maker: Maker, job: Job) -> Awaitable[list[Any]]:
        own = job.own
        given = Given(own.out.parent, own.data, own.topics, lambda: job.scorer, own.prompts)
        return make(maker, given)

    return Whole(made)


async def _dialogues(maker: Maker, job: Job, found: list[Prompt]) -> list[Dialogue]:
    user = job.own.part("user", job.each, maker.ask)
    held = await dialogues(maker, found, user, job.own.synth.verify)
    if job.scorer is None:
        return held
    return await filters.by_reward(maker, held, job.scorer, job.own.synth.dialogue_reward)


async def _comparisons(maker: Maker, job: Job, found: list[Prompt]) -> list:
    judges = Judges(job.runner, job.own.part("judge", job.each, maker.ask), job.scorer)
    return await comparisons(maker, found, job.each, judges, job.own.comparisons)


def _judged(own: FlowFile) -> None:
    told_of_judges(own, list(read_jsonl(own.out, Comparison)))


async def _code(maker: Maker, job: Job) -> list[Dialogue]:
    if job.own.data is None:
        raise UserError("this flow needs data = FILE, a JSONL of prompts")
    seeds = list(read_jsonl(job.own.data, Prompt))
    coder, judge = (job.own.part(role, job.each, maker.ask) for role in ("coder", "judge"))
    return await genetic(maker, seeds, job.own.genetic, job.runner, coder, judge)


FLOWS: dict[str, Whole | Each] = {
    "prompts": Whole(_prompts),
    "dialogues": Each(Prompt, _dialogues),
    "comparisons": Each(Prompt, _comparisons, _judged),
    "code": Whole(_code),
    **{name: _prompt_flow(make) for name, make in PROMPT_FLOWS.items()},
    **{n: Whole(lambda maker, job, flow=flow: flow(maker, job.own)) for n, flow in EXTRAS.items()},
}
