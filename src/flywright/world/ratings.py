"""Answers with known defects, and what a careful reader would think of each; then rated by people.

Two answers to a prompt always have different defects. The noise-free helpfulness stays with the
rating (lineage.scores["gold_helpfulness"]) so that a reward model can be held against it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from flywright.files import seed_from
from flywright.records import ATTRIBUTES, Lineage, Prompt, Rating, record_id
from flywright.world.annotators import Pool
from flywright.world.reader import Reader, Reading
from flywright.world.teacher_errors import chatty, slip
from flywright.world.words import table

MODEL = "simulated answers"


@dataclass(frozen=True)
class Case:
    """A prompt's right answer, its reading, another item's right answer, and a source of chance."""

    right: str
    reading: Reading
    other: str
    rng: Random


@dataclass(frozen=True)
class Defect:
    """A way to answer: its text, in which {words} stand for PIECES, and its true attributes."""

    name: str
    text: str
    attributes: tuple[float, float, float, float, float]
    weight: int = 1

    def answer(self, case: Case) -> str:
        return re.sub(r"{(\w+)}", lambda match: PIECES[match[1]](case), self.text)


DEFECTS = {name: Defect(name, **row) for name, row in table("ratings").items()}


def _shuffled(case: Case) -> str:
    text = case.right
    words = (text if len(text.split()) > 2 else f"{text} and the of is {text} not").split()
    case.rng.shuffle(words)
    return " ".join(words)


def _half(case: Case) -> str:
    text, words = case.right, case.right.split(" ")
    return " ".join(words[: len(words) // 2]) if len(words) > 1 else text[: max(1, len(text) // 2)]


def _off_format(case: Case) -> str:
    """The answer with its instructions ignored, or in a form that nobody asked for."""
    family = case.reading.family if case.reading.instructions else None
    plain = family.solve(case.reading.fields) if family else ""
    return plain if plain not in ("", case.right) else f"- {case.right}\n- end of list"


PIECES: dict[str, Callable[[Case], str]] = {
    "right": lambda case: case.right,
    "other": lambda case: case.other,
    "slip": lambda case: slip(case.right, case.rng),
    "polite": lambda case: chatty(case.right),
    "half": _half,
    "shuffled": _shuffled,
    "off_format": _off_format,
    "nothing": lambda case: case.rng.choice(("I do not know.", "...")),
}


def _two_answers(case: Case) -> list[tuple[Defect, str]]:
    """Two defects with different texts; a text equal to the right one counts as right."""
    found: dict[str, Defect] = {}
    ways = [*DEFECTS.values()]
    while len(found) < 2:
        defect = case.rng.choices(ways, [one.weight for one in ways])[0]
        text = defect.answer(case)
        if text.strip():
            found.setdefault(text, DEFECTS["right"] if text == case.right else defect)
    return [(defect, text) for text, defect in found.items()]


def _record(prompt: Prompt, text: str, defect: Defect, label: Sequence[int], seed: int) -> Rating:
    return Rating(
        id=record_id("rating", prompt.id, text),
        conversation=prompt.conversation.answered(text),
        **dict(zip(ATTRIBUTES, map(float, label), strict=True)),
        lineage=Lineage(
            source="world-ratings",
            answer_by="model",
            model=MODEL,
            seed=seed,
            parents=(prompt.id,),
            scores={"gold_helpfulness": defect.attributes[0]},
            filters=(f"defect:{defect.name}",),
        ),
    )


def rate_prompts(prompts: Sequence[Prompt], reader: Reader, count: int, seed: int) -> list[Rating]:
    """Up to `count` ratings, two for each prompt; prompts on which people disagree are dropped."""
    pool, ratings = Pool(seed_from(seed, "annotators")), []
    for index, prompt in enumerate(prompts):
        if len(ratings) + 2 > count:
            break
        rng = Random(seed_from(seed, "ratings", prompt.id))
        reading = reader.read(prompt.conversation)
        assert reading is not None, prompt
        other = reader.read(_another(prompts, index).conversation)
        case = Case(reading.answer(), reading, other.answer() if other else "", rng)
        pair = _two_answers(case)
        labels = [pool.rate(defect.attributes, rng) for defect, _ in pair]
        for (defect, text), label in zip(pair, labels, strict=True):
            if None not in labels and label is not None:
                ratings.append(_record(prompt, text, defect, label, seed))
    return ratings


def _another(prompts: Sequence[Prompt], index: int) -> Prompt:
    """A later prompt of the same task if there is one near, else the next."""
    around = [prompts[(index + step) % len(prompts)] for step in range(1, 60)]
    return next((one for one in around if one.task == prompts[index].task), around[0])
