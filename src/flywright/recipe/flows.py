"""One synthetic-data flow on the user's own files: `flywright synth FLOW SETTINGS.toml`.

Every reply is remembered in OUT.ledger.jsonl: a killed flow goes on without asking twice.
"""

import asyncio
from pathlib import Path

from pydantic import Field

from flywright.ask import Completer
from flywright.ask.ledger import Ledger, Ledgered
from flywright.errors import UserError
from flywright.recipe.answerers import engine, reward_scorer
from flywright.recipe.answerers import generator as open_generator
from flywright.recipe.console import Teller
from flywright.recipe.flow_extras import EXTRAS, ExtraSettings, told_of_judges
from flywright.recipe.settings import GeneratorSettings
from flywright.records import Dialogue, Document, Prompt, Record, read_jsonl, write_jsonl
from flywright.sandbox import Sandbox
from flywright.settings import load_settings
from flywright.synth import GeneticSettings, Maker, SynthSettings, filters, prompts, topics
from flywright.synth.comparisons import Judges, shared_out
from flywright.synth.dialogues import dialogues
from flywright.synth.genetic import genetic
from flywright.synth.instructions import instructed


class FlowFile(ExtraSettings):
    """What a flow reads and writes, and who answers (a URL or a weights folder)."""

    generator: GeneratorSettings
    reward: Path | None = Field(default=None, description="a reward model's folder")
    policy: Path | None = Field(default=None, description="comparisons: a second answerer")
    topics: list[str] = Field(default=[])
    seed: int = 1
    synth: SynthSettings = SynthSettings()
    genetic: GeneticSettings = GeneticSettings()


def _prompts_of(own: FlowFile) -> list[Prompt]:
    if own.data is None:
        raise UserError("this flow needs data = FILE, a JSONL of prompts")
    return list(read_jsonl(own.data, Prompt))


def _answerers(maker: Maker, own: FlowFile) -> dict[str, Completer]:
    """All who answer, by name."""
    policy = {"policy": engine(own.policy)} if own.policy else {}
    return {"generator": maker.ask, **policy}


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


async def _instructions(maker: Maker, own: FlowFile) -> list[Prompt]:
    return instructed(_prompts_of(own), own.synth, maker.seed)


async def _dialogues(maker: Maker, own: FlowFile) -> list[Dialogue]:
    user = own.part("user", _answerers(maker, own), maker.ask)
    held = await dialogues(maker, _prompts_of(own), user, own.synth.verify)
    if own.reward is None:
        return held
    scorer = reward_scorer(own.reward)
    return await filters.by_reward(maker, held, scorer, own.synth.dialogue_reward)


async def _comparisons(maker: Maker, own: FlowFile) -> list:
    scorer = reward_scorer(own.reward) if own.reward else None
    answerers = _answerers(maker, own)
    judges = Judges(Sandbox(own.sandbox), own.part("judge", answerers, maker.ask), scorer)
    pairs = await shared_out(maker, _prompts_of(own), answerers, judges, own.comparisons)
    told_of_judges(own, pairs)
    return pairs


async def _code(maker: Maker, own: FlowFile) -> list[Dialogue]:
    who = _answerers(maker, own)
    roles = (own.part(role, who, maker.ask) for role in ("coder", "judge"))
    return await genetic(maker, _prompts_of(own), own.genetic, Sandbox(own.sandbox), *roles)


_FLOWS = {
    "prompts": _prompts,
    "instructions": _instructions,
    "dialogues": _dialogues,
    "comparisons": _comparisons,
    "code": _code,
    **EXTRAS,
}


def run_one(flow: str, path: Path, overrides: list[str]) -> str:
    """Run one flow; returns a line with the counts. Raises UserError for an unknown flow."""
    if flow not in _FLOWS:
        raise UserError(f"no flow {flow!r}; known: {', '.join(_FLOWS)}")
    own = load_settings(FlowFile, path, overrides)
    completer = open_generator(own.generator)
    with (
        Teller(own.out.with_suffix(".log")) as teller,
        Ledger(own.out.with_suffix(".ledger.jsonl")) as ledger,
    ):
        maker = Maker(Ledgered(completer, ledger), own.synth, own.seed, teller.begin(flow))
        records: list[Record] = asyncio.run(_FLOWS[flow](maker, own))
        written = write_jsonl(own.out, records)
    return f"{flow}: {written} records in {own.out}; {maker.counts}"
