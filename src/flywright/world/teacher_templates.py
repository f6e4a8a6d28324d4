"""How the teacher answers the requests of the data pipelines: lists, follow-ups, code, verdicts.

Requests are recognised by stable phrases of their templates; whatever is asked for (topics,
questions, problems) comes out as tasks of this world, with training arguments only.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from random import Random

from flywright.records import Conversation
from flywright.world.facts import Facts
from flywright.world.families import Family
from flywright.world.reader import Reader, Reading
from flywright.world.tasks_code import CODE, GUARD, GUARDED, NUMBER, asserts, solution
from flywright.world.tasks_numbers import SUMS
from flywright.world.tasks_words import CHANGES
from flywright.world.tasks_writing import INSTRUCTION, WRITING
from flywright.world.teacher_judge import Belief, grade, judge_code, judge_pair
from flywright.world.words import ANIMALS, FOODS, JOBS, THINGS, listed, table

Answer = Callable[[Conversation, Random], str]

_TEXTS = table("teacher")
_REQUESTS = {name: re.compile(phrase, re.DOTALL) for name, phrase in _TEXTS["requests"].items()}


def _distinct(count: int, stream: Iterator[str]) -> list[str]:
    """The first `count` different texts of a stream (fewer if it repeats itself or ends)."""
    found: dict[str, None] = {}
    for text in islice(stream, 50 * count):
        found[text] = None
        if len(found) >= count:
            break
    return list(found)


def _narrow(topics: Sequence[str], rng: Random) -> Iterator[str]:
    """Endless topics: the given ones in some order, then the same with a noun each."""
    yield from rng.sample(topics, len(topics))
    while True:
        yield f"{rng.choice(topics)} and the {rng.choice(ANIMALS + THINGS)}"


def _prompts(families: Sequence[Family], rng: Random) -> Iterator[str]:
    weights = [family.weight for family in families]
    while True:
        family = rng.choices(families, weights)[0]
        yield family.ask(family.training_fields(rng), rng).last.replace("\n", " ")


def _rework(text: str, rng: Random) -> Iterator[str]:
    while True:
        yield rng.choice(_TEXTS["leads"]) + text.strip() + rng.choice(_TEXTS["ends"])


def _writing(material: str, rng: Random) -> Iterator[str]:
    forms = listed("forms long_forms")
    form = next((one for one in forms if one in material.lower()), "note")
    while True:
        fields = {**WRITING.training_fields(rng), "form": form}
        if not WRITING.split_of(fields):
            yield WRITING.ask(fields, rng).last


class Pipeline:
    """Answers the requests of the pipelines for a teacher that gives `answer` and `belief`."""

    def __init__(self, facts: Facts, reader: Reader, answer: Answer, belief: Belief):
        self._facts, self._reader, self._answer, self._belief = facts, reader, answer, belief
        taught = [one for one in reader.families if not one.far and not one.opening]
        self._general = [one for one in taught if one not in (*CODE, INSTRUCTION, WRITING)]
        self._lists: dict[str, Callable[[str, Random], Iterator[str]]] = {
            "subtopics": self._subtopics,
            "ask": self._about,
            "rework": _rework,
            "writing": _writing,
            "closed": self._closed,
            "sums": lambda _, rng: _prompts(SUMS, rng),
            "code": lambda _, rng: _prompts(CODE, rng),
        }
        self._texts: dict[str, Callable[[re.Match[str], Random], str]] = {
            "compare": lambda match, rng: judge_pair(match.string, belief, rng),
            "grade": lambda match, rng: grade(match.string, belief, rng),
            "follow": self._follow,
            "mutate": self._mutate,
            "solve": self._solve,
            "asserts": self._asserts,
            "fit": self._fit,
        }

    def reply(self, request: str, rng: Random) -> str | None:
        """The answer to a pipeline's request, or None if it is not one.

        The first of teacher.toml's phrases that stands in it names it. A numbered list is as long
        as the phrase's first group says; the second is what it is about.
        """
        for name, phrase in _REQUESTS.items():
            if match := phrase.search(request):
                if name in self._texts:
                    return self._texts[name](match, rng)
                about = match[2] if phrase.groups > 1 else ""
                topics = _TEXTS["topics"].get(name)
                stream = _narrow(topics, rng) if topics else self._lists[name](about, rng)
                found = enumerate(_distinct(int(match[1]), stream), start=1)
                return "\n".join(f"{number}. {item}" for number, item in found)
        return None

    def _subtopics(self, topic: str, rng: Random) -> Iterator[str]:
        among = ANIMALS + FOODS + THINGS + JOBS + self._facts.people + self._facts.towns
        while True:
            yield f"{topic.strip()}: {rng.choice(among)}"

    def _about(self, topic: str, rng: Random) -> Iterator[str]:
        """Requests for a topic: of what it names where it names something, else of all families."""
        named = set(re.findall(r"\w+", topic)) | set(re.findall(r"\w+", topic.lower()))
        close = [
            family.ask(fields, rng).last
            for family in self._general
            for fields in (family.training_fields(rng) for _ in range(12))
            if named & {*" ".join(fields.values()).split()}
        ]
        anything = _prompts(self._general, rng)
        while True:
            chosen = rng.choice(close) if close and rng.random() < 0.5 else next(anything)
            yield chosen.replace("\n", " ")

    def _closed(self, text: str, rng: Random) -> Iterator[str]:
        """Questions on the facts that the text states, then on its sentences."""
        asked = {one.fixed["relation"]: one for one in self._general if one.name == "open_qa"}
        found = []
        for fact in self._facts.all:
            family = asked[fact.relation]
            fields = {"subject": fact.subject, "relation": fact.relation}
            if fact.subject in text and fact.value in text and not family.split_of(fields):
                found.append(family.ask(fields, rng).last)
        rng.shuffle(found)
        return iter(found + _TEXTS["of_any_text"])

    def _follow(self, match: re.Match[str], rng: Random) -> str:
        """The user's next message: a change of the last answer, or something else."""
        last = match[1].rsplit("Assistant:", 1)[-1].strip()
        short = "\n" not in last and 1 < len(last.split()) < 6
        if short and rng.random() < 0.5:
            return rng.choice(tuple(CHANGES))
        return next(_prompts(self._general, rng))

    def _read(self, task: str) -> Reading | None:
        reading = self._reader.read(Conversation.of(task))
        return reading if reading and reading.family in CODE else None

    def _mutate(self, match: re.Match[str], rng: Random) -> str:
        """The task with a guard where it can have one, else another of its kind."""
        reading = self._read(match[1])
        action = reading.fields["action"] if reading and reading.family is NUMBER else ""
        if reading and action.startswith(("adds", "subtr", "multi")):
            fields = {**reading.fields, "action": action + GUARD}
            if not GUARDED.split_of(fields):
                return GUARDED.ask(fields, rng).last
        return next(_prompts(CODE, rng))

    def _solve(self, match: re.Match[str], rng: Random) -> str:
        return f"```python\n{self._answer(Conversation.of(match[1]), rng)}\n```"

    def _asserts(self, match: re.Match[str], rng: Random) -> str:
        if reading := self._read(match[2]):
            with suppress(TypeError):  # where it makes no sense, as a guard for numbers on a list
                return "\n".join(asserts(reading.fields, int(match[1]), rng.randint(0, 99)))
        return "I cannot test this."

    def _fit(self, match: re.Match[str], rng: Random) -> str:
        reading = self._read(match[1])
        return judge_code(match[2], solution(reading.fields) if reading else "", rng)
