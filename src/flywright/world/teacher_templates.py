"""How the teacher answers the requests of the data pipelines: lists, follow-ups, code, verdicts.

Requests are recognised by stable phrases of their templates; whatever is asked for (topics,
questions, problems) comes out as tasks of this world, with training arguments only.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from random import Random

from flywright.records import Conversation
from flywright.world.facts import Facts
from flywright.world.families import Family
from flywright.world.reader import Reader, Reading
from flywright.world.tasks import METRIC_OF_TASK
from flywright.world.tasks_code import GUARD, asserts, solution
from flywright.world.tasks_words import CHANGES
from flywright.world.tasks_writing import SENTENCE_COUNT, WRITING
from flywright.world.teacher_judge import Belief, grade, judge_code, judge_pair
from flywright.world.words import ANIMALS, FOODS, JOBS, THINGS, table

Answerer = Callable[[Conversation, Random], str]
Handler = Callable[[re.Match[str], Random], str]

_TEXTS = table("teacher")
_MACRO, _MATH, _PYTHON = (_TEXTS[f"{name}_topics"] for name in ("macro", "math", "python"))


def _distinct(count: int, stream: Iterator[str]) -> list[str]:
    """The first `count` different texts of a stream (fewer if it repeats itself or ends)."""
    found: dict[str, None] = {}
    for text in islice(stream, 50 * count):
        found[text] = None
        if len(found) >= count:
            break
    return list(found)


def _listing(stream: Callable[[re.Match[str], Random], Iterator[str]]) -> Handler:
    """Answers with a numbered list: the stream's, as long as the request's first group says."""

    def act(match: re.Match[str], rng: Random) -> str:
        found = _distinct(int(match[1]), stream(match, rng))
        return "\n".join(f"{number}. {item}" for number, item in enumerate(found, start=1))

    return act


def _narrow(topics: Sequence[str], rng: Random) -> Iterator[str]:
    """Endless topics: the given ones in some order, then the same with a noun each."""
    yield from rng.sample(topics, len(topics))
    while True:
        yield f"{rng.choice(topics)} and the {rng.choice(ANIMALS + THINGS)}"


class Pipeline:
    """The handlers, tried in order; the first whose phrase stands in the request answers."""

    def __init__(
        self,
        families: Sequence[Family],
        facts: Facts,
        reader: Reader,
        answer: Answerer,
        belief: Belief,
    ):
        taught = [one for one in families if not one.far and not one.opening]
        self._code = [one for one in taught if METRIC_OF_TASK[one.name] == "code"]
        self._sums = [one for one in taught if "a" in one.draw(Random(0))]
        names = ("instruction", "writing")
        self._general = [one for one in taught if one not in self._code and one.name not in names]
        self._facts, self._reader = facts, reader
        self._answer, self._belief = answer, belief
        known = self._table()
        self._handlers = [
            (re.compile(phrase, re.DOTALL), known[name])
            for name, phrase in _TEXTS["requests"].items()
        ]

    def _table(self) -> dict[str, Handler]:
        """By the names of teacher.toml's requests; what is tried first stands first there."""
        return {
            "compare": self._compare,
            "grade": self._grade,
            "macro_topics": self._topics(_MACRO),
            "subtopics": _listing(self._subtopics),
            "math_topics": self._topics(_MATH),
            "python_topics": self._topics(_PYTHON),
            "ask": _listing(lambda match, rng: self._about(match[2], rng)),
            "rework": _listing(self._rework),
            "writing": _listing(self._writing),
            "closed": _listing(self._closed),
            "sums": self._problems(self._sums),
            "code": self._problems(self._code),
            "follow": self._follow,
            "mutate": self._mutate,
            "solve": self._solve,
            "asserts": self._asserts,
            "fit": self._fit,
        }

    def reply(self, request: str, rng: Random) -> str | None:
        """The answer to a pipeline's request, or None if it is not one."""
        for pattern, act in self._handlers:
            if match := pattern.search(request):
                return act(match, rng)
        return None

    def _prompts(self, families: Sequence[Family], rng: Random) -> Iterator[str]:
        weights = [family.weight for family in families]
        while True:
            family = rng.choices(families, weights)[0]
            yield family.ask(family.training_fields(rng), rng).last.replace("\n", " ")

    def _topics(self, topics: Sequence[str]) -> Handler:
        return _listing(lambda match, rng: _narrow(topics, rng))

    def _subtopics(self, match: re.Match[str], rng: Random) -> Iterator[str]:
        topic = match[2].strip()
        among = ANIMALS + FOODS + THINGS + JOBS + self._facts.people + self._facts.towns
        while True:
            yield f"{topic}: {rng.choice(among)}"

    def _about(self, topic: str, rng: Random) -> Iterator[str]:
        """Requests for a topic: of what it names where it names something, else of all families."""
        named = set(re.findall(r"\w+", topic)) | set(re.findall(r"\w+", topic.lower()))
        close = [
            family.ask(fields, rng).last
            for family in self._general
            for fields in (family.training_fields(rng) for _ in range(12))
            if named & {*" ".join(fields.values()).split()}
        ]
        anything = self._prompts(self._general, rng)
        while True:
            chosen = rng.choice(close) if close and rng.random() < 0.5 else next(anything)
            yield chosen.replace("\n", " ")

    def _problems(self, families: Sequence[Family]) -> Handler:
        return _listing(lambda match, rng: self._prompts(families, rng))

    def _rework(self, match: re.Match[str], rng: Random) -> Iterator[str]:
        while True:
            yield rng.choice(_TEXTS["leads"]) + match[2].strip() + rng.choice(_TEXTS["ends"])

    def _writing(self, match: re.Match[str], rng: Random) -> Iterator[str]:
        form = next((one for one in SENTENCE_COUNT if one in match[2].lower()), "note")
        while True:
            fields = {**WRITING.training_fields(rng), "form": form}
            if not WRITING.is_heldout(fields):
                yield WRITING.ask(fields, rng).last

    def _closed(self, match: re.Match[str], rng: Random) -> Iterator[str]:
        """Questions on the facts that the text states, then on its sentences."""
        text, found = match[2], []
        for family in self._general:
            if family.name == "open_qa":
                found += self._stated(family, text, rng)
        rng.shuffle(found)
        found += [f"Write the {which} sentence of the text." for which in ("first", "last")]
        found += ["Name three things.", "Name two animals.", "Name four colours."]
        return iter(found)

    def _stated(self, family: Family, text: str, rng: Random) -> list[str]:
        relation = family.fixed["relation"]
        facts = [fact for fact in self._facts.all if fact.relation == relation]
        return [
            family.ask(fields, rng).last
            for fact in facts
            if fact.subject in text and fact.value in text
            if not family.is_heldout(fields := {"subject": fact.subject, "relation": relation})
        ]

    def _follow(self, match: re.Match[str], rng: Random) -> str:
        """The user's next message: a change of the last answer, or something else."""
        last = match[1].rsplit("Assistant:", 1)[-1].strip()
        short = "\n" not in last and 1 < len(last.split()) < 6
        if short and rng.random() < 0.5:
            return rng.choice(tuple(CHANGES))
        return next(self._prompts(self._general, rng))

    def _read(self, task: str) -> Reading | None:
        reading = self._reader.read(Conversation.of(task))
        return reading if reading and reading.family in self._code else None

    def _mutate(self, match: re.Match[str], rng: Random) -> str:
        """The task with a guard where it can have one, else another of its kind."""
        reading = self._read(match[1])
        guarded = next(family for family in self._code if family.name == "code_guard")
        if reading and reading.family and reading.family.name == "code_number":
            action = reading.fields["action"]
            fields = {**reading.fields, "action": action + GUARD.format(arg="x")}
            if action.startswith(("adds", "subtr", "multi")) and not guarded.is_heldout(fields):
                return guarded.ask(fields, rng).last
        return next(self._prompts(self._code, rng))

    def _solve(self, match: re.Match[str], rng: Random) -> str:
        return f"```python\n{self._answer(Conversation.of(match[1]), rng)}\n```"

    def _asserts(self, match: re.Match[str], rng: Random) -> str:
        reading = self._read(match[2])
        if reading is None:
            return "I cannot test this."
        try:
            return "\n".join(asserts(reading.fields, int(match[1]), rng.randint(0, 99)))
        except TypeError:  # a task that makes no sense, such as a guard for numbers on a list
            return "I cannot test this."

    def _fit(self, match: re.Match[str], rng: Random) -> str:
        reading = self._read(match[1])
        return judge_code(match[2], solution(reading.fields) if reading else "", rng)

    def _compare(self, match: re.Match[str], rng: Random) -> str:
        return judge_pair(match.string, self._belief, rng)

    def _grade(self, match: re.Match[str], rng: Random) -> str:
        return grade(match.string, self._belief, rng)
