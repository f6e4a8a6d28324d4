"""Single-turn prompts (SPEC 6.2): open Q&A, writing, closed Q&A, mathematics, coding.

Each flow takes topics or documents and returns Prompts; `mix` and `split` part them for use. With
a Novelty, what is a near copy of an earlier prompt is turned away while they are made, and asked
for again with what is there already.
"""

import itertools
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from flywright.ask.protocol import Completer
from flywright.files import seed_from
from flywright.records import Document, Prompt, record_id
from flywright.synth.diversity import Novelty
from flywright.synth.filters import Pool, normal, text_of
from flywright.synth.maker import Maker
from flywright.synth.topics import math_topics, python_topics
from flywright.synth.wording import Template, template, variants

_RECORD = re.compile(r"[0-9a-f]{12}").fullmatch  # a record's id among the parents
UNSAFE = "unsafe"  # the score in the lineage of a prompt that was flagged
_SHOWN = 20  # prompts that are named where a list is asked for again


@dataclass
class _Quota:
    """Placeholder values, the parents of the prompts, those taken, and all that were told."""

    values: dict[str, str]
    parents: tuple[str, ...]
    kept: list[Prompt] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Another in each round, as the call is."""
        return record_id(self.values, self.told)


async def _made(
    maker: Maker,
    name: str,
    wording: Template,
    quotas: Sequence[_Quota],
    count: int,
    novelty: Novelty | None,
) -> list[Prompt]:
    """`count` prompts of each quota, in order, or as many as the last round leaves."""
    source = name.partition(" ")[0]
    again = Template(f"{wording.name}+again", f"{wording.text}\n{template('again').text}")

    async def step(quota: _Quota, _ask: Completer) -> list[tuple[_Quota, Prompt]]:
        used = again if quota.told else wording
        values = {**quota.values, "taken": "\n".join(f"- {text}" for text in quota.told[-_SHOWN:])}
        texts, sampling = await maker.ask_list(used, count - len(quota.kept), **values)
        lineage = maker.lineage(source, used, sampling, quota.parents)
        return [(quota, maker.prompt(source, text, lineage)) for text in texts]

    for _ in range(novelty.rounds if novelty else 1):
        short = [quota for quota in quotas if len(quota.kept) < count]
        for quota, prompt in await maker.run(name, step, short):
            text = prompt.conversation.last
            quota.told.append(text)
            if novelty is None or novelty.takes(text):
                quota.kept.append(prompt)
    if novelty:
        below = sum(len(quota.kept) < count for quota in quotas)
        taken = {"in": novelty.counts.total(), "out": novelty.counts["taken"]}
        told = {**taken, **novelty.counts, "below their quota": below}
        maker.counts[f"{name}: novelty"] = told
    return [prompt for quota in quotas for prompt in quota.kept]


async def _listed(
    maker: Maker,
    source: str,
    wording: Template,
    rows: Iterable[dict[str, str]],
    novelty: Novelty | None,
) -> list[Prompt]:
    """Prompts from one template, settings.questions for each row of placeholder values."""
    quotas = [_Quota(row, tuple(row.values())) for row in rows]
    return await _made(maker, source, wording, quotas, maker.settings.questions, novelty)


async def _revised(
    maker: Maker, source: str, slot: str, prompts: Sequence[Prompt], novelty: Novelty | None
) -> list[Prompt]:
    """Richer versions of each prompt in its place; the prompts themselves if none are wanted."""
    if not maker.settings.revisions:
        return list(prompts)
    own = Novelty(maker.settings.near_duplicate, novelty.rounds) if novelty else None
    quotas = [
        _Quota({slot: prompt.conversation.last}, (prompt.id, *prompt.lineage.parents))
        for prompt in prompts
    ]
    wording, count = template(f"revise_{source}"), maker.settings.revisions
    return await _made(maker, f"{source} revised", wording, quotas, count, own)


async def open_qa(
    maker: Maker, topics: Iterable[str], novelty: Novelty | None = None
) -> list[Prompt]:
    """Questions and requests about topics, each made richer."""
    rows = [{"topic": topic} for topic in topics]
    plain = await _listed(maker, "open_qa", template("open_qa"), rows, novelty)
    return await _revised(maker, "open_qa", "question", plain, novelty)


async def writing(
    maker: Maker, topics: Iterable[str], novelty: Novelty | None = None
) -> list[Prompt]:
    """Writing tasks on topics x settings.materials, each made more exact."""
    pairs = itertools.product(topics, maker.settings.materials)
    rows = [{"topic": topic, "material": material} for topic, material in pairs]
    plain = await _listed(maker, "writing", template("writing"), rows, novelty)
    return await _revised(maker, "writing", "task", plain, novelty)


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


async def math(
    maker: Maker, given: Iterable[str] = (), novelty: Novelty | None = None, most: int = 0
) -> list[Prompt]:
    """Mathematics problems at each of settings.school_levels; `given` topics join every level.

    most: topics of all levels together; 0 = all.
    """
    levels, given = maker.settings.school_levels, list(given)
    share = -(-most // len(levels)) or None
    rows = [
        {"topic": topic, "school_level": level}
        for level in levels
        for topic in (await math_topics(maker, level, given))[:share]
    ]
    return await _listed(maker, "math", template("math_problems"), rows, novelty)


async def coding(
    maker: Maker, given: Iterable[str] = (), novelty: Novelty | None = None, most: int = 0
) -> list[Prompt]:
    """Python problems on topics x settings.difficulties; most: topics, 0 = all."""
    found = (await python_topics(maker, given))[: most or None]
    pairs = itertools.product(found, maker.settings.difficulties)
    rows = [{"topic": topic, "difficulty": difficulty} for topic, difficulty in pairs]
    return await _listed(maker, "coding", template("python_problems"), rows, novelty)


def mix(groups: Sequence[Sequence[Prompt]], count: int, seed: int) -> list[Prompt]:
    """At most `count` prompts, the sources in turn (a balanced ratio, SPEC 6.5), drawn by seed."""
    shuffled = []
    for number, group in enumerate(groups):
        shuffled.append(random.Random(seed_from(seed, "mix", number)).sample(group, len(group)))
    rounds = itertools.zip_longest(*shuffled)
    return [prompt for turn in rounds for prompt in turn if prompt is not None][:count]


def _related(prompts: Sequence[Prompt], near: float) -> list[int]:
    """The group of each prompt: equal texts, near copies, and what has an ancestor in common."""
    group = list(range(len(prompts)))
    pool, known = Pool(near), {}

    def first(number: int) -> int:
        while group[number] != number:
            number = group[number] = group[group[number]]
        return number

    for number, prompt in enumerate(prompts):
        text = text_of(prompt)
        others = [other for other, _ in pool.alike(text)]
        pool.add(text)
        family = (prompt.id, *(name for name in prompt.lineage.parents if _RECORD(name)))
        for name in (normal(text), *family):
            others.append(known.setdefault(name, number))
        for other in others:
            group[first(number)] = first(other)
    return [first(number) for number in range(len(prompts))]


def split(
    prompts: Iterable[Prompt], preference_share: float, seed: int, near: float = 0.0
) -> tuple[list[Prompt], list[Prompt]]:
    """(for SFT, for preferences): disjoint by text, so that copies never part.

    near: over 0, near copies (a Jaccard index of that much) and what was made of one prompt or one
    document stay together too. The seed and the text alone draw the side (of a group, its first
    text in the alphabet), not what else is there. Flagged prompts, and their group, are never for
    SFT.
    """
    listed = list(prompts)
    texts = [[normal(message.content) for message in p.conversation.messages] for p in listed]
    groups: list = _related(listed, near) if near else texts
    heads: dict[str, list[str]] = {}
    unsafe = set()
    for prompt, group, text in zip(listed, map(str, groups), texts, strict=True):
        heads[group] = min(heads.get(group, text), text)
        if prompt.lineage.scores.get(UNSAFE):
            unsafe.add(group)
    parts: tuple[list[Prompt], list[Prompt]] = ([], [])
    for prompt, group in zip(listed, map(str, groups), strict=True):
        drawn = seed_from(seed, "split", heads[group]) < preference_share * 2**63
        parts[drawn or group in unsafe].append(prompt)
    return parts
