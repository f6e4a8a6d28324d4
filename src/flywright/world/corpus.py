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
from flywright.world.facts import RELATIONS, Fact, Facts, state
from flywright.world.families import Family
from flywright.world.tasks_code import CODE, asserts, solution
from flywright.world.tasks_facts import LANGUAGES, OPENERS, draw_sentence, translate
from flywright.world.tasks_numbers import SUMS, add_by_columns
from flywright.world.tasks_words import CHANGES, change_lesson
from flywright.world.tasks_writing import INSTRUCTION, TELLING, WRITING, sentence_about
from flywright.world.words import ANIMALS, COLOURS, GUESTS, THINGS, fill, table


@dataclass(frozen=True)
class Source:
    """One collection: how much of it there is, and how many paragraphs a document has at most."""

    name: str
    language: str
    characters: int
    paragraphs: int


_TABLE, _ENGLISH = table("corpus"), table("english")
SOURCES = tuple(Source(name, *rest) for name, rest in _TABLE["sources"].items())
HARD: dict[str, int] = _TABLE["hard"]


def _handbook(facts: Facts, rng: Random) -> str:
    """Two to five facts as sentences: about one subject, or of one relation."""
    if rng.random() < 0.6:
        subject = rng.choice((*facts.people, *facts.towns))
        chosen = [fact for fact in facts.all if fact.subject == subject]
    else:
        relation = rng.choice(tuple(RELATIONS))
        chosen = [fact for fact in facts.all if fact.relation == relation]
    chosen = rng.sample(chosen, min(len(chosen), rng.randint(2, 5)))
    return " ".join(_told(fact, rng) for fact in chosen)


def _told(fact: Fact, rng: Random) -> str:
    sentence = state(fact, rng.choice(RELATIONS[fact.relation].statements))
    link = rng.choice(_ENGLISH["links"])
    return link + sentence if sentence.startswith(fact.subject) else sentence


def _story(rng: Random) -> str:
    """A few everyday sentences about a guest, an animal or a thing."""
    given = {"guest": rng.choice(GUESTS), "noun": rng.choice(ANIMALS + THINGS)}
    first, *others = _ENGLISH["story"]
    sentences = [
        fill(first, rng, **given),
        sentence_about(rng.choice(COLOURS), given["noun"], rng),
        *(fill(form, rng, **given) for form in others),
    ]
    return " ".join(rng.sample(sentences, rng.randint(2, 4)))


def _noise(text: str, recent: list[str], rng: Random) -> str:
    """The text as a bad crawl has it: repeated whole, cluttered, scrambled, or left as it is."""
    kind = rng.random()
    if kind < 0.3 and recent:
        return rng.choice(recent)
    if kind < 0.45:
        return f"{_ENGLISH['junk']}\n{text}\n{_ENGLISH['junk']}"
    if kind < 0.6:
        words = text.split()
        rng.shuffle(words)
        return " ".join(words)
    if kind < 0.7:
        return "\n".join([text.split(".")[0]] * 8)
    if kind < 0.8:
        return "".join(rng.choice("#@%^&*()_+=~{}[]<>/\\0123456789xyz ") for _ in range(200))
    return text


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
                text = _noise(text, recent, rng)
            recent = [*recent[-20:], text]
            written += len(text)
            language = rng.choice([*LANGUAGES.values()]) if source.language == "mixed" else ""
            yield Document(text=text, source=source.name, language=language or source.language)

    def _paragraph(self, source: Source) -> Callable[[Random], str]:
        taught = [one for one in self._families if one.lessons and one not in SUMS]
        makers = {
            "handbook": partial(_handbook, self._facts),
            "lessons": partial(_lesson, taught),
            "sums": partial(_lesson, SUMS),
            "stories": _story,
            "web": _story,
            "manners": _manners,
            "primer": _pair,
            "python": _code_file,
        }
        return makers.get(source.name) or partial(_reader, source.language)
