"""The pretraining text of the small world, by source, and the question-answer texts.

Every fact is stated, in many wordings; tasks are shown worked (training arguments only, or every
argument where the family is `known`); other languages and code stand beside. One source is noisy,
so that filters have something to drop. Each source comes from its own seed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from flywright.files import seed_from
from flywright.records import Document
from flywright.world.corpus_english import Handbook, noise, story
from flywright.world.facts import Facts
from flywright.world.families import Family
from flywright.world.languages import LANGUAGES, OPENERS, draw_sentence, translate
from flywright.world.tasks import METRIC_OF_TASK
from flywright.world.tasks_code import asserts, plan_of, solution
from flywright.world.tasks_numbers import add_by_columns
from flywright.world.tasks_words import CHANGES, change_lesson
from flywright.world.words import table

Paragraph = Callable[[Random], str]


@dataclass(frozen=True)
class Source:
    """One collection: `quality` from 0 (junk) to 1, which continued training weighs by."""

    name: str
    language: str
    quality: float
    characters: int
    parts: int  # paragraphs to a document


_TABLE = table("corpus")
SOURCES = tuple(Source(name, *rest) for name, rest in _TABLE["sources"].items())
QUALITY: dict[str, float] = {source.name: source.quality for source in SOURCES}
HARD: dict[str, int] = _TABLE["hard"]


def worked(family: Family, rng: Random) -> str:
    """One item of a family as the corpus shows it: a lesson with its answer."""
    fields = family.draw(rng) if family.known else family.training_fields(rng)
    lesson = rng.choice(family.lessons)
    steps = add_by_columns(fields) if "{steps}" in lesson else ""
    return lesson.format(**fields, answer=family.solve(fields), steps=steps)


def _lesson(families: list[Family]) -> Paragraph:
    """What can only be known is told more often than what can be worked out."""
    weights = [4 if family.known else 1 for family in families]
    return lambda rng: worked(rng.choices(families, weights)[0], rng)


def _reader(code: str) -> Paragraph:
    def paragraph(rng: Random) -> str:
        if rng.random() < 0.2:
            return rng.choice(OPENERS[code])
        return translate(draw_sentence(rng, with_place=True), code)

    return paragraph


def _manners(instruction: Family, writing: list[Family]) -> Paragraph:
    """Requests as people write them, with fitting answers, as in a book of manners."""

    def paragraph(rng: Random) -> str:
        if rng.random() < 0.15:
            return change_lesson(rng.choice(tuple(CHANGES)), rng)
        family = instruction if rng.random() < 0.6 else rng.choice(writing)
        fields = family.training_fields(rng)
        return f"{family.ask(fields, rng).last}\n{family.solve(fields)}"

    return paragraph


def _code_file(family: Family, rng: Random) -> str:
    """One function of a code family (training arguments), in one of several dresses."""
    fields = family.training_fields(rng)
    source, plan = solution(fields), plan_of(fields)
    head, body = source.split("\n", 1)
    call = asserts(fields, 1, rng.randint(0, 5))[0].removeprefix("assert ")
    used, result = call.split(" == ", 1)
    forms = (
        f"# {fields['name']} {fields['action']}\n{source}",
        f'{head}\n    """Function that {fields["action"]}."""\n{body}',
        f"{source}\n\nprint({used})  # {result}",
        f"# function {fields['name']}({plan.argument}) that {fields['action']}\n{source}\n\n"
        f"assert {call}",
    )
    return rng.choice(forms) + "\n"


def _pair(rng: Random) -> str:
    """One sentence and its translation, named or plain."""
    sentence, (name, code) = (
        draw_sentence(rng, rng.random() < 0.5),
        rng.choice([*LANGUAGES.items()]),
    )
    english, other = translate(sentence, "en"), translate(sentence, code)
    return rng.choice((f"English: {english} {name}: {other}", f"{english}\n{other}"))


class Corpus:
    """Writes the documents of one world."""

    def __init__(
        self,
        families: tuple[Family, ...],
        facts: Facts,
        seed: int,
        leave_out: tuple[str, ...] = (),
    ):
        self._families, self._facts, self._seed = families, facts, seed
        self._sources = [source for source in SOURCES if source.name not in leave_out]

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
            text = "\n".join(paragraph(rng) for _ in range(rng.randint(2, source.parts)))
            if source.name == "web":
                text = noise(text, recent, rng)
            recent = [*recent[-20:], text]
            written += len(text)
            language = rng.choice([*LANGUAGES.values()]) if source.language == "mixed" else ""
            yield Document(text=text, source=source.name, language=language or source.language)

    def _paragraph(self, source: Source) -> Paragraph:
        taught = [family for family in self._families if family.lessons]
        sums = [family for family in taught if "a" in family.draw(Random(0))]
        by_name = {family.name: family for family in self._families}
        code = [f for f in self._families if not f.far and METRIC_OF_TASK[f.name] == "code"]
        makers: dict[str, Paragraph] = {
            "handbook": Handbook(self._facts).paragraph,
            "lessons": _lesson([family for family in taught if family not in sums]),
            "sums": _lesson(sums),
            "stories": story,
            "web": story,
            "manners": _manners(
                by_name["instruction"], [by_name["writing"], by_name["tell_about"]]
            ),
            "primer": _pair,
            "python": lambda rng: _code_file(rng.choice(code), rng),
        }
        return makers.get(source.name) or _reader(source.language)
