"""Instruction following: a short request with a verifiable instruction; two at once are "far"."""

from collections.abc import Callable
from random import Random
from typing import Any

from flywright.files import seed_from
from flywright.records import Check
from flywright.world.families import Fields, worded
from flywright.world.instructions import (
    SHORT_KINDS,
    Instruction,
    draw_instruction,
    read_instructions,
)
from flywright.world.obey import turn
from flywright.world.tasks_writing import WRITING, compose
from flywright.world.words import ANIMALS, COLOURS, FOODS, THINGS

_NUMBERS = {"two": 2, "three": 3, "four": 4}
_KINDS = {"animal": ANIMALS, "food": FOODS, "colour": COLOURS, "thing": THINGS}
_TOPICS = ANIMALS + FOODS + THINGS

LISTING = worded(
    "list_things",
    lambda rng: {"number": rng.choice(tuple(_NUMBERS)), "kind": rng.choice(tuple(_KINDS))},
    lambda fields: ", ".join(_some(fields)),
    patterns={"number": "|".join(_NUMBERS), "kind": "|".join(_KINDS)},
)
TELLING = worded(
    "tell_about",
    lambda rng: {"noun": rng.choice(_TOPICS)},
    lambda fields: compose({"colour": "", **fields}),
    checks=lambda fields: (Check(kind="keywords:existence", args={"keywords": [fields["noun"]]}),),
    patterns={"noun": "|".join(_TOPICS)},
)
BASES = (WRITING, TELLING, LISTING)


def _some(fields: Fields) -> list[str]:
    rng = Random(seed_from("list", fields["kind"], fields["number"]))
    return rng.sample(_KINDS[fields["kind"]], _NUMBERS[fields["number"]])


def obey_all(answer: str, instructions: tuple[Instruction, ...]) -> str:
    """The answer changed to follow every instruction, in an order in which none is undone."""
    for instruction in sorted(instructions, key=lambda one: turn(one.kind)):
        answer = instruction.obey(answer)
    return answer


def base_answer(request: str) -> str:
    """The answer to a request of BASES, before any instruction."""
    readings = [(base, found) for base in BASES if (found := base.read(request))]
    if not readings:
        return request
    base, (fields, _) = max(readings, key=lambda reading: reading[1][1])
    return base.solve(fields)


def _draw(count: int) -> Callable[[Random], Fields]:
    def draw(rng: Random) -> Fields:
        base = rng.choice(BASES)
        fields = base.training_fields(rng)  # so that no held-out base is shown
        kinds = _compatible_kinds(rng, count)
        instructions = [draw_instruction(rng, kind) for kind in kinds]
        request = base.phrasings[0].format(**fields)
        return {"request": request, "instruction": " ".join(one.wording() for one in instructions)}

    return draw


def _compatible_kinds(rng: Random, count: int) -> list[str]:
    """`count` kinds that do not undo each other: one of a group, and no length among several."""
    if count == 1:
        return [rng.choice(SHORT_KINDS)]
    groups = {_group(kind): kind for kind in rng.sample(SHORT_KINDS, len(SHORT_KINDS))}
    groups.pop("length_constraints", None)
    return rng.sample(list(groups.values()), count)


def _group(kind: str) -> str:
    """Kinds of one group undo each other; a bullet cannot stand within quotation marks."""
    return "startend" if kind.endswith("bullet_lists") else kind.split(":")[0]


def _solve(fields: Fields) -> str:
    instructions, _ = read_instructions(fields["instruction"])
    return obey_all(base_answer(fields["request"]), instructions)


def _checks(fields: Fields) -> tuple[Check, ...]:
    instructions, _ = read_instructions(fields["instruction"])
    return tuple(one.check() for one in instructions)


_RULES: dict[str, Any] = {
    "checks": _checks,
    "patterns": {"request": "(?!)", "instruction": "(?!)"},  # read_instructions reads them
}
INSTRUCTION = worded("instruction", _draw(1), _solve, weight=6, **_RULES)
INSTRUCTION_PAIR = worded("instruction_pair", _draw(2), _solve, far=True, weight=3, **_RULES)
