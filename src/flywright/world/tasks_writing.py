"""Short texts ("Write a story about the red fox."), and the same under verifiable instructions.

The words asked for must occur, and a story or letter needs its sentences; two instructions at once
are "far". A program can check it all.
"""

from functools import partial
from random import Random

from flywright.files import seed_from
from flywright.records import Check
from flywright.world.families import Fields, best_reading, worded
from flywright.world.instructions import (
    draw_instructions,
    obey_all,
    read_instructions,
    short_wording,
)
from flywright.world.words import ANIMALS, LISTS, QUALITIES, fill, listed, table

_ENGLISH = table("english")


def sentence_about(colour: str, noun: str, rng: Random) -> str:
    given = {name: rng.choice(LISTS[name]) for name in ("places", "qualities", "acts")}
    forms = _ENGLISH["about"] + (_ENGLISH["about_animals"] if noun in ANIMALS else [])
    return rng.choice(
        [fill(form, rng, thing=f"{colour} {noun}".strip(), **given) for form in forms]
    )


def compose(fields: Fields, sample: int = 0) -> str:
    """A good text for the request; `sample` picks another one."""
    rng = Random(seed_from("compose", sorted(fields.items()), sample))
    form = fields.get("form", "")
    sentences = [sentence_about(fields["colour"], fields["noun"], rng)]
    if form in LISTS["long_forms"]:
        sentences.append(f"It is {rng.choice(QUALITIES)} and {rng.choice(QUALITIES)}.")
    if form in ("letter", "email"):
        return "Dear friend, " + sentences[0][0].lower() + " ".join(sentences)[1:]
    return ("\n" if form == "poem" else " ").join(sentences)


def _mentions(fields: Fields) -> tuple[Check, ...]:
    words = [fields[name] for name in ("colour", "noun") if name in fields]
    checks = [Check(kind="keywords:existence", args={"keywords": words})]
    if fields.get("form") in LISTS["long_forms"]:
        args = {"relation": "at least", "num_sentences": 2}
        checks.append(Check(kind="length_constraints:number_sentences", args=args))
    return tuple(checks)


_NUMBERS = {"two": 2, "three": 3, "four": 4}


def _things(fields: Fields) -> str:
    rng = Random(seed_from("list", fields["kind"], fields["number"]))
    return ", ".join(rng.sample(listed(f"{fields['kind']}s"), _NUMBERS[fields["number"]]))


WRITING = worded("writing", compose, checks=_mentions)
LISTING = worded("list_things", _things)
TELLING = worded("tell_about", lambda fields: compose({"colour": "", **fields}), checks=_mentions)
BASES = (WRITING, TELLING, LISTING)


def _draw(count: int, rng: Random) -> Fields:
    base = rng.choice(BASES)
    fields = base.training_fields(rng)  # so that no held-out base is shown
    instructions = " ".join(map(short_wording, draw_instructions(rng, count)))
    return {"request": base.phrasings[0].format(**fields), "instruction": instructions}


def _solve(fields: Fields) -> str:
    read = best_reading(BASES, fields["request"])
    answer = read[0].solve(read[1]) if read else fields["request"]
    return obey_all(answer, read_instructions(fields["instruction"])[0])


def _checks(fields: Fields) -> tuple[Check, ...]:
    return read_instructions(fields["instruction"])[0]


INSTRUCTION = worded("instruction", _solve, partial(_draw, 1), checks=_checks)
INSTRUCTION_PAIR = worded("instruction_pair", _solve, partial(_draw, 2), checks=_checks)
FAMILIES = (WRITING, TELLING, INSTRUCTION, INSTRUCTION_PAIR)
