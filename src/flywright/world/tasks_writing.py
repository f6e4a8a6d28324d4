"""Writing short texts: "Write a story about the red fox." and what a good answer looks like.

The words asked for must occur, and a story or letter needs its sentences: a program can check it.
"""

from random import Random

from flywright.files import seed_from
from flywright.records import Check
from flywright.world.families import Fields, worded
from flywright.world.words import ANIMALS, COLOURS, PLACES, QUALITIES, THINGS, VERBS, an

SENTENCE_COUNT = {"sentence": 1, "note": 1, "message": 1, "story": 2, "poem": 2, "letter": 2}
SENTENCE_COUNT |= {"essay": 2, "email": 2, "newsletter": 2}
_SUBJECTS = ANIMALS + THINGS[:40]
_WORDS = {"form": tuple(SENTENCE_COUNT), "colour": COLOURS, "noun": _SUBJECTS}
_ACTS = ("sleeps", "stands", "waits", "stays", "rests", "shines")


def sentence_about(colour: str, noun: str, rng: Random) -> str:
    """One sentence with the colour and the noun."""
    place, quality, act = rng.choice(PLACES), rng.choice(QUALITIES), rng.choice(_ACTS)
    thing = f"{colour} {noun}".strip()
    forms = [
        f"The {thing} {act} {place}.",
        f"{an(thing).capitalize()} {act} {place}.",
        f"The {thing} is {quality} and {act} {place}.",
    ]
    if noun in ANIMALS:
        forms.append(f"The {thing} {rng.choice(VERBS)} the {rng.choice(THINGS)} {place}.")
    return rng.choice(forms)


def compose(fields: Fields, sample: int = 0) -> str:
    """A good text for the request; `sample` picks another one."""
    rng = Random(seed_from("compose", sorted(fields.items()), sample))
    count = SENTENCE_COUNT.get(fields.get("form", ""), 1)
    sentences = [sentence_about(fields["colour"], fields["noun"], rng)]
    sentences += [f"It is {rng.choice(QUALITIES)} and {rng.choice(QUALITIES)}."] * (count - 1)
    if fields.get("form") in ("letter", "email"):
        return "Dear friend, " + sentences[0][0].lower() + " ".join(sentences)[1:]
    return ("\n" if fields.get("form") == "poem" else " ").join(sentences)


def _draw(rng: Random) -> Fields:
    return {name: rng.choice(words) for name, words in _WORDS.items()}


def _checks(fields: Fields) -> tuple[Check, ...]:
    words = {"keywords": [fields["colour"], fields["noun"]]}
    checks = [Check(kind="keywords:existence", args=words)]
    if (count := SENTENCE_COUNT[fields["form"]]) > 1:
        args = {"relation": "at least", "num_sentences": count}
        checks.append(Check(kind="length_constraints:number_sentences", args=args))
    return tuple(checks)


_PATTERNS = {name: "|".join(words) for name, words in _WORDS.items()}
WRITING = worded("writing", _draw, compose, checks=_checks, patterns=_PATTERNS, weight=3)
