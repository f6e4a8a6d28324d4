"""Single-turn prompts (SPEC 6.2): open Q&A, writing, closed Q&A, mathematics, coding.

Each flow takes topics or documents and returns Prompts; `mix` and `split` part them for use.
"""

import itertools
import random
from collections.abc import Iterable, Sequence

from flywright.ask.protocol import Completer
from flywright.files import seed_from
from flywright.records import Document, Prompt, record_id
from flywright.synth.filters import normal
from flywright.synth.maker import Maker
from flywright.synth.topics import math_topics, python_topics
from flywright.synth.wording import Template, template, variants


async def _listed(
    maker: Maker, source: str, wording: Template, items: Sequence[dict[str, str]]
) -> list[Prompt]:
    """Prompts from one template, settings.questions for each item of placeholder values."""

    async def step(values: dict[str, str], _ask: Completer) -> list[Prompt]:
        texts, sampling = await maker.ask_list(wording, maker.settings.questions, **values)
        parents = tuple(values.values())
        lineage = maker.lineage(source, wording, sampling, parents)
        return [maker.prompt(source, text, lineage) for text in texts]

    return await maker.run(source, step, items)


async def _revised(
    maker: Maker, source: str, wording: Template, slot: str, prompts: Sequence[Prompt]
) -> list[Prompt]:
    """Richer versions of each prompt in its place; the prompts themselves if none are wanted."""
    if not maker.settings.revisions:
        return list(prompts)

    async def step(prompt: Prompt, _ask: Completer) -> list[Prompt]:
        values = {slot: prompt.conversation.last}
        texts, sampling = await maker.ask_list(wording, maker.settings.revisions, **values)
        lineage = maker.lineage(source, wording, sampling, (prompt.id, *prompt.lineage.parents))
        return [maker.prompt(source, text, lineage) for text in texts]

    return await maker.run(f"{source} revised", step, prompts)


async def open_qa(maker: Maker, topics: Iterable[str]) -> list[Prompt]:
    """Questions and requests about topics, each made richer."""
    items = [{"topic": topic} for topic in topics]
    plain = await _listed(maker, "open_qa", template("open_qa"), items)
    return await _revised(maker, "open_qa", template("revise_open_qa"), "question", plain)


async def writing(maker: Maker, topics: Iterable[str]) -> list[Prompt]:
    """Writing tasks on topics x settings.materials, each made more exact."""
    pairs = itertools.product(topics, maker.settings.materials)
    items = [{"topic": topic, "material": material} for topic, material in pairs]
    plain = await _listed(maker, "writing", template("writing"), items)
    return await _revised(maker, "writing", template("revise_writing"), "task", plain)


def cut(text: str, characters: int) -> str:
    """The text up to the last sentence end within `characters`, or up to the last space."""
    if len(text) <= characters:
        return text
    head = text[:characters]
    end = max(head.rfind(mark) for mark in (". ", "! ", "? ", "\n"))
    return head[: end + 1].strip() if end > 0 else head.rsplit(" ", 1)[0]


async def closed_qa(maker: Maker, documents: Iterable[Document]) -> list[Prompt]:
    """Questions about documents, joined with their document by one of several templates."""
    wording, joins = template("closed_qa"), variants("closed_qa_join")

    async def step(text: str, _ask: Completer) -> list[Prompt]:
        count = maker.settings.questions
        questions, sampling = await maker.ask_list(wording, count, document=text)
        prompts = []
        for question in questions:
            join = joins[seed_from(maker.seed, text, question) % len(joins)]
            parents = (record_id(text), join.hash)
            lineage = maker.lineage("closed_qa", wording, sampling, parents)
            whole = join.text.format(document=text, instruction=question)
            prompts.append(maker.prompt("closed_qa", whole, lineage))
        return prompts

    characters = maker.settings.document_characters
    return await maker.run("closed_qa", step, [cut(d.text, characters) for d in documents])


async def math(maker: Maker, given: Iterable[str] = ()) -> list[Prompt]:
    """Mathematics problems at each of settings.school_levels; `given` topics join every level."""
    items = [
        {"topic": topic, "school_level": level}
        for level in maker.settings.school_levels
        for topic in await math_topics(maker, level, given)
    ]
    return await _listed(maker, "math", template("math_problems"), items)


async def coding(maker: Maker, given: Iterable[str] = ()) -> list[Prompt]:
    """Python problems on topics x settings.difficulties."""
    pairs = itertools.product(await python_topics(maker, given), maker.settings.difficulties)
    items = [{"topic": topic, "difficulty": difficulty} for topic, difficulty in pairs]
    return await _listed(maker, "coding", template("python_problems"), items)


def mix(groups: Sequence[Sequence[Prompt]], count: int, seed: int) -> list[Prompt]:
    """At most `count` prompts, the sources in turn (a balanced ratio, SPEC 6.5), drawn by seed."""
    shuffled = []
    for number, group in enumerate(groups):
        shuffled.append(random.Random(seed_from(seed, "mix", number)).sample(group, len(group)))
    rounds = itertools.zip_longest(*shuffled)
    return [prompt for turn in rounds for prompt in turn if prompt is not None][:count]


def split(
    prompts: Iterable[Prompt], preference_share: float, seed: int
) -> tuple[list[Prompt], list[Prompt]]:
    """(for SFT, for preferences): disjoint by text, so that copies never part."""
    parts: tuple[list[Prompt], list[Prompt]] = ([], [])
    for prompt in prompts:
        text = [normal(message.content) for message in prompt.conversation.messages]
        parts[seed_from(seed, "split", text) < preference_share * 2**63].append(prompt)
    return parts
