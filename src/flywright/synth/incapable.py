"""Incapable tasks (SPEC 6.8): requests that need what the model lacks, and honest refusals.

    ability, people's examples -> more such requests -> another call declines each
                               -> as many requests that text can meet (controls), answered

The abilities and the examples that people wrote are in incapable.toml.
"""

import re
from pathlib import Path

from pydantic import Field

from flywright.ask.protocol import Completer
from flywright.files import seed_from
from flywright.records import Conversation, Dialogue, record_id
from flywright.settings import Settings, read_toml
from flywright.synth.filters import Pool
from flywright.synth.flow import Dropped
from flywright.synth.maker import Maker
from flywright.synth.wording import template

ABILITIES: dict[str, list[str]] = read_toml(Path(__file__).with_suffix(".toml"))["abilities"]
_REFUSAL = re.compile(
    r"\b(?:cannot|can['’]t|can not|could not|unable|not able|do(?:n['’]t| not) have|not possible|"
    r"no (?:way|access|means)|beyond)\b",
    re.IGNORECASE,
)


class IncapableSettings(Settings):
    """How many requests, and whether ones that can be met stand beside them."""

    requests: int = Field(default=100, ge=1, description="for each ability")
    batch: int = Field(default=10, ge=1, description="requests asked for in one call")
    examples: int = Field(default=3, ge=1, description="shown with each call")
    controls: bool = Field(default=True, description="as many requests that can be met")


def refuses(answer: str) -> bool:
    """Whether an answer's first two sentences say that something cannot be done."""
    return bool(_REFUSAL.search(" ".join(re.split(r"(?<=[.!?])\s+", answer.strip())[:2])))


async def incapable(maker: Maker, settings: IncapableSettings) -> list[Dialogue]:
    """Dialogues of the tasks "incapable" (declined) and "capable" (answered), in a fixed order.

    Each call for requests shows some of people's examples and of what came before, so that the
    next ones differ; near copies are dropped, and answers that do not do what they should.
    """
    asked: list[tuple[str, str, str]] = []
    known = Pool(maker.settings.near_duplicate)

    async def ask_for(place: tuple[str, str], _ask: Completer) -> list[tuple[str, str, str]]:
        ability, task = place
        wording = template("incapable_questions" if task == "incapable" else "incapable_controls")
        found: list[str] = []
        for number in range(-(-settings.requests // settings.batch)):
            start = seed_from(maker.seed, place, number)
            sources = [*ABILITIES[ability], *found[-settings.batch :]]
            shown = [sources[(start + n) % len(sources)] for n in range(settings.examples)]
            lines = "\n".join(f"- {one}" for one in shown)
            try:
                values = {"ability": ability, "examples": lines}
                found += (await maker.ask_list(wording, settings.batch, **values))[0]
            except Dropped:
                break
        return [(ability, task, text) for text in found[: settings.requests]]

    async def answer(request: tuple[str, str, str], ask: Completer) -> list[Dialogue]:
        ability, task, text = request
        wording = template("incapable_refusal")
        plain = Conversation.of(text)
        declines = task == "incapable"
        question = wording.fill(ability=ability, question=text) if declines else plain
        said, sampling = await maker.say(ask, question, task, text)
        if refuses(said) != declines:
            raise Dropped("no refusal" if declines else "refused what it can do")
        used = wording if declines else None
        lineage = maker.lineage(task, used, sampling, (ability,), answer_by="model")
        name = record_id(task, text)
        return [Dialogue(id=name, conversation=plain.answered(said), task=task, lineage=lineage)]

    tasks = ("incapable", "capable") if settings.controls else ("incapable",)
    places = [(ability, task) for ability in ABILITIES for task in tasks]
    for request in await maker.run("incapable requests", ask_for, places):
        if not known.likest(request[2]):
            known.add(request[2])
            asked.append(request)
    return await maker.run("incapable answers", answer, asked)


def balance(made: list[Dialogue]) -> dict[str, dict[str, int]]:
    """For each ability: how many requests were declined, and how many like ones answered."""
    counts = {ability: {"incapable": 0, "capable": 0} for ability in ABILITIES}
    for dialogue in made:
        counts[dialogue.lineage.parents[0]][dialogue.task] += 1
    return counts
