"""One synthetic-data flow on the user's own files: `flywright synth FLOW SETTINGS.toml`.

Every reply is remembered in OUT.ledger.jsonl: a killed flow goes on without asking twice.
"""

import asyncio
from pathlib import Path

from pydantic import Field

from flywright.ask import Completer, Scorer
from flywright.ask.ledger import Ledger, Ledgered
from flywright.errors import UserError
from flywright.recipe.answerers import engine, reward_scorer
from flywright.recipe.answerers import generator as open_generator
from flywright.recipe.console import Teller
from flywright.recipe.prompt_flows import PROMPT_FLOWS, Given, PromptFlowSettings
from flywright.recipe.settings import GeneratorSettings
from flywright.records import Dialogue, Document, Prompt, Record, read_jsonl, write_jsonl
from flywright.sandbox import Sandbox, SandboxSettings
from flywright.settings import Settings, load_settings
from flywright.synth import GeneticSettings, Maker, SynthSettings, filters, prompts, topics
from flywright.synth.comparisons import Judges, shared_out
from flywright.synth.dialogues import dialogues
from flywright.synth.genetic import genetic


class FlowFile(Settings):
    """What a flow reads and writes, and who answers (a URL or a weights folder)."""

    out: Path
    generator: GeneratorSettings
    data: Path | None = Field(default=None, description="JSONL: prompts, or documents")
    reward: str = Field(default="", description="a reward model's folder, or a server's URL")
    policy: Path | None = Field(default=None, description="comparisons: a second answerer")
    topics: list[str] = Field(default=[])
    seed: int = 1
    synth: SynthSettings = SynthSettings()
    prompts: PromptFlowSettings = PromptFlowSettings()
    genetic: GeneticSettings = GeneticSettings()
    sandbox: SandboxSettings = SandboxSettings()


def _prompts_of(own: FlowFile) -> list[Prompt]:
    if own.data is None:
        raise UserError("this flow needs data = FILE, a JSONL of prompts")
    return list(read_jsonl(own.data, Prompt))


async def _prompts(maker: Maker, own: FlowFile) -> list[Prompt]:
    subjects = await topics.topics(maker, own.topics)
    made = [
        *await prompts.open_qa(maker, subjects),
        *await prompts.writing(maker, subjects),
        *await prompts.math(maker),
        *await prompts.coding(maker),
    ]
    if own.data is not None:
        made += await prompts.closed_qa(maker, read_jsonl(own.data, Document))
    distinct, _ = filters.near(filters.exact(made)[0], own.synth.near_duplicate)
    return distinct


def _scorer(own: FlowFile) -> Scorer | None:
    if not own.reward.startswith(("http://", "https://")):
        return reward_scorer(Path(own.reward)) if own.reward else None
    from flywright.serve.client import HttpScorer

    return HttpScorer(own.reward)


def _given(own: FlowFile) -> Given:
    return Given(own.out.parent, own.data, own.topics, lambda: _scorer(own), own.prompts)


async def _dialogues(maker: Maker, own: FlowFile) -> list[Dialogue]:
    held = await dialogues(maker, _prompts_of(own), verify=own.synth.verify)
    scorer = _scorer(own)
    if scorer is None:
        return held
    return await filters.by_reward(maker, held, scorer, own.synth.dialogue_reward)


async def _comparisons(maker: Maker, own: FlowFile) -> list:
    scorer = _scorer(own)
    answerers: dict[str, Completer] = {"generator": maker.ask}
    if own.policy is not None:
        answerers["policy"] = engine(own.policy)
    judges = Judges(Sandbox(own.sandbox), maker.ask, scorer)
    return await shared_out(maker, _prompts_of(own), answerers, judges)


async def _code(maker: Maker, own: FlowFile) -> list[Dialogue]:
    return await genetic(maker, _prompts_of(own), own.genetic, Sandbox(own.sandbox))


_FLOWS = {
    "prompts": _prompts,
    "dialogues": _dialogues,
    "comparisons": _comparisons,
    "code": _code,
    **{
        name: lambda maker, own, make=make: make(maker, _given(own))
        for name, make in PROMPT_FLOWS.items()
    },
}


def run_one(flow: str, path: Path, overrides: list[str]) -> str:
    """Run one flow; returns a line with the counts. Raises UserError for an unknown flow."""
    if flow not in _FLOWS:
        raise UserError(f"no flow {flow!r}; known: {', '.join(_FLOWS)}")
    own = load_settings(FlowFile, path, overrides)
    if not own.out.suffix:
        own = own.model_copy(update={"out": own.out / f"{flow}.jsonl"})
    completer = open_generator(own.generator)
    with (
        Teller(own.out.with_suffix(".log")) as teller,
        Ledger(own.out.with_suffix(".ledger.jsonl")) as ledger,
    ):
        maker = Maker(Ledgered(completer, ledger), own.synth, own.seed, teller.begin(flow))
        records: list[Record] = asyncio.run(_FLOWS[flow](maker, own))
        written = write_jsonl(own.out, records)
    return f"{flow}: {written} records in {own.out}; {maker.counts}"
