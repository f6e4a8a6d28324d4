"""The pretraining text of the small world, by source, and the question-answer texts.

Every fact is stated, in many wordings; tasks are shown worked (training arguments only, or every
argument where the family is `known`); other languages and code stand beside. One source is noisy,
so that filters have something to drop. Each source comes from its own seed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from flywright.files import seed_from
from flywright.records import Document
from flywright.world.english import handbook, noise, story
from flywright.world.facts import Facts
from flywright.world.families import Family
from flywright.world.languages import LANGUAGES, OPENERS, draw_sentence, translate
from flywright.world.tasks_code import CODE, asserts, solution
from flywright.world.tasks_numbers import SUMS, add_by_columns
from flywright.world.tasks_words import CHANGES, change_lesson
from flywright.world.tasks_writing import INSTRUCTION, TELLING, WRITING
from flywright.world.words import table


@dataclass(frozen=True)
class Source:
    """One collection: how much of it there is, and how many paragraphs a document has at most."""

    name: str
    language: str
    characters: int
    paragraphs: int


_TABLE = table("corpus")
SOURCES = tuple(Source(name, *rest) for name, rest in _TABLE["sources"].items())
HARD: dict[str, int] = _TABLE["hard"]


def _lesson(families: Sequence[Family], rng: Random) -> str:
    """One item shown worked. What can only be known is told more often than what is worked out."""
    family = rng.choices(families, [4 if one.known else 1 for one in families])[0]
    fields = family.draw(rng) if family.known else family.training_fields(rng)
    lesson = rng.choice(family.lessons)
    steps = add_by_columns(fields) if "{steps}" in lesson else ""
    return lesson.format(**fields, answer=family.solve(fields), steps=steps)


def _reader(code: str, rng: Random) -> str:
    if rng.random() < 0.2:
        return rng.choice(OPENERS[code])
    return translate(draw_sentence(rng, with_place=True), code)


def _manners(rng: Random) -> str:
    """Requests as people write them, with fitting answers, as in a book of manners."""
    if rng.random() < 0.15:
        return change_lesson(rng.choice(tuple(CHANGES)), rng)
    family = INSTRUCTION if rng.random() < 0.6 else rng.choice((WRITING, TELLING))
    fields = family.training_fields(rng)
    return f"{family.ask(fields, rng).last}\n{family.solve(fields)}"


def _code_file(rng: Random) -> str:
    """One function of a code family (training arguments), in one of several dresses."""
    fields = rng.choice(CODE).training_fields(rng)
    source = solution(fields)
    head, body = source.split("\n", 1)
    call = asserts(fields, 1, rng.randint(0, 5))[0]
    used, result = call.removeprefix("assert ").split(" == ", 1)
    parts = {"source": source, "head": head, "body": body}
    parts |= {"call": call, "used": used, "result": result}
    return rng.choice(_TABLE["code_files"]).format(**fields, **parts) + "\n"


def _pair(rng: Random) -> str:
    """One sentence and its translation, named or plain."""
    sentence = draw_sentence(rng, with_place=rng.random() < 0.5)
    name, code = rng.choice([*LANGUAGES.items()])
    english, other = translate(sentence, "en"), translate(sentence, code)
    return rng.choice((f"English: {english} {name}: {other}", f"{english}\n{other}"))


class Corpus:
    """Writes the documents of one world, without the sources and families that are `untold`."""

    def __init__(
        self, families: Sequence[Family], facts: Facts, seed: int, untold: tuple[str, ...] = ()
    ):
        self._families = [family for family in families if family.name not in untold]
        self._sources = [source for source in SOURCES if source.name not in untold]
        self._facts, self._seed = facts, seed

    def documents(self) -> Iterator[Document]:
        """Every document, source by source; the same for the same seed."""
        for source in self._sources:
            yield from self._documents(source)

    def questions(self, count: int = 60000) -> list[Document]:
        """Training items as transcripts, for the second part of continued training.

        What small models find hard comes more often. A fact is asked for once in each wording: what
        is asked for too often is learned by heart, and the handbook is not read.
        """
        rng = Random(seed_from(self._seed, "questions"))
        families = [family for family in self._families if not family.far]
        weights = [family.weight * HARD.get(family.name, 1) for family in families]
        texts, asked = [], set()
        for family in rng.choices(families, weights, k=count):
            fields = family.training_fields(rng)
            talk = family.ask(fields, rng).answered(family.solve(fields))
            if family.name != "open_qa" or talk.messages[0].content not in asked:
                turns = (f"{turn.role.capitalize()}\n{turn.content}" for turn in talk.messages)
                texts.append("\n".join(turns))
            asked.add(talk.messages[0].content)
        return [Document(text=text, source="questions") for text in texts]

    def _documents(self, source: Source) -> Iterator[Document]:
        rng = Random(seed_from(self._seed, "corpus", source.name))
        paragraph, written = self._paragraph(source), 0
        recent: list[str] = []
        while written < source.characters:
            text = "\n".join(paragraph(rng) for _ in range(rng.randint(2, source.paragraphs)))
            if source.name == "web":
                text = noise(text, recent, rng)
            recent = [*recent[-20:], text]
            written += len(text)
            language = rng.choice([*LANGUAGES.values()]) if source.language == "mixed" else ""
            yield Document(text=text, source=source.name, language=language or source.language)

    def _paragraph(self, source: Source) -> Callable[[Random], str]:
        taught = [one for one in self._families if one.lessons and one not in SUMS]
        makers = {
            "handbook": partial(handbook, self._facts),
            "lessons": partial(_lesson, taught),
            "sums": partial(_lesson, SUMS),
            "stories": story,
            "web": story,
            "manners": _manners,
            "primer": _pair,
            "python": _code_file,
        }
        return makers.get(source.name) or partial(_reader, source.language)
