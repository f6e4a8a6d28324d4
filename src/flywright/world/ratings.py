"""Answers with known defects, and what a careful reader would think of each; then rated by people.

Two answers to a prompt always have different defects. The noise-free helpfulness stays with the
rating (lineage.scores["gold_helpfulness"]) so that a reward model can be held against it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from flywright.files import seed_from
from flywright.records import ATTRIBUTES, Lineage, Prompt, Rating, record_id
from flywright.world.annotators import Pool
from flywright.world.reader import Reader, Reading
from flywright.world.teacher_errors import chatty, slip

MODEL = "simulated answers"


@dataclass(frozen=True)
class Defect:
    """A way to answer: the text it makes of the right one, and its true attributes (0-4)."""

    name: str
    make: Callable[["Case"], str]
    attributes: tuple[float, float, float, float, float]
    weight: int = 1


@dataclass(frozen=True)
class Case:
    """A prompt's right answer, its reading, another item's right answer, and a source of chance."""

    right: str
    reading: Reading
    other: str
    rng: Random


def _shuffled(text: str, rng: Random) -> str:
    words = (text if len(text.split()) > 2 else f"{text} and the of is {text} not").split()
    rng.shuffle(words)
    return " ".join(words)


def _half(text: str) -> str:
    words = text.split(" ")
    return " ".join(words[: len(words) // 2]) if len(words) > 1 else text[: max(1, len(text) // 2)]


def _off_format(case: Case) -> str:
    """The answer with its instructions ignored, or in a form that nobody asked for."""
    if case.reading.instructions:
        plain = case.reading.family.solve(case.reading.fields) if case.reading.family else ""
        if plain and plain != case.right:
            return plain
    return f"- {case.right}\n- end of list"


def _wordy(text: str) -> str:
    return (
        f"This is a question about which much can be said. First I read it, then I thought about "
        f"it for a long time. It is good to think. Here is what I found.\n{text}\n"
        f"This was the answer, and I hope that it is long enough."
    )


DEFECTS = (
    Defect("right", lambda case: case.right, (4, 4, 4, 1, 1), weight=6),
    Defect("slip", lambda case: slip(case.right, case.rng), (1, 1, 4, 1, 1), weight=4),
    Defect("wrong", lambda case: case.other, (0, 0, 3, 1, 1), weight=3),
    Defect("partly", lambda case: _half(case.right), (1.5, 1.5, 3, 1, 0), weight=2),
    Defect("chatty", lambda case: f"Sure! The answer is {case.right}", (3.4, 4, 4, 1, 2)),
    Defect("polite", lambda case: chatty(case.right), (2.6, 3.5, 3.5, 1, 3)),
    Defect("wordy", lambda case: _wordy(case.right), (2, 3.5, 2.5, 1.5, 4), weight=2),
    Defect("wordy_wrong", lambda case: _wordy(case.other), (0, 0, 2, 1.5, 4)),
    Defect("shuffled", lambda case: _shuffled(case.right, case.rng), (0.5, 0.7, 0, 0.5, 1)),
    Defect("off_format", _off_format, (2, 2.5, 3.5, 1, 1)),
    Defect("empty", lambda case: case.rng.choice(("I do not know.", "...")), (0, 0, 3, 0, 0)),
)
_BY_NAME = {defect.name: defect for defect in DEFECTS}


def _two_answers(case: Case) -> list[tuple[Defect, str]]:
    """Two defects with different texts; a text equal to the right one counts as right."""
    found: dict[str, Defect] = {}
    while len(found) < 2:
        defect = case.rng.choices(DEFECTS, [one.weight for one in DEFECTS])[0]
        text = defect.make(case)
        if text.strip():
            found.setdefault(text, _BY_NAME["right"] if text == case.right else defect)
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
