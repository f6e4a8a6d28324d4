"""Questions about the world's facts, questions about a passage, and short translations.

A sentence to translate is subject, verb, object and place by number; each language has its words
for them, the objects already in the right case, so that word order is the only grammar needed.
"""

from functools import cache
from itertools import product
from random import Random

from flywright.world.facts import RELATIONS, Facts
from flywright.world.families import Family, Fields, worded
from flywright.world.words import COLOURS, GUESTS, THINGS, an, table

LANGUAGES = {"Spanish": "es", "German": "de", "French": "fr", "Russian": "ru"}

_WORDS = table("languages")
OPENERS: dict[str, list[str]] = _WORDS.pop("openers")
_PARTS: list[dict[str, list[str]]] = [*_WORDS.values()]  # subjects, verbs, objects, places
Sentence = tuple[int, ...]  # the numbers of subject, verb, object and place (place 0 is none)


def draw_sentence(rng: Random, with_place: bool = False) -> Sentence:
    subject, verb, thing, place = (rng.randrange(len(words["en"])) for words in _PARTS)
    return subject, verb, thing, place if with_place else 0


def translate(sentence: Sentence, language: str) -> str:
    """The sentence in one language (a code), capitalised, with a full stop."""
    chosen = [words[language][index] for words, index in zip(_PARTS, sentence, strict=True)]
    text = " ".join(part for part in chosen if part)
    return f"{text[0].upper()}{text[1:]}."


@cache
def sentences() -> dict[str, Sentence]:
    numbers = product(*(range(len(words["en"])) for words in _PARTS))
    return {translate(sentence, "en"): sentence for sentence in numbers}


def _fact_family(facts: Facts, relation: str, hop: bool) -> Family:
    """Open questions of one relation; with a `hop`, those on the town where somebody lives.

    Every fact is in the corpus, some questions are kept back.
    """
    subjects = facts.people if hop else facts.subjects[relation]
    questions = RELATIONS[relation].hop_questions if hop else RELATIONS[relation].questions

    def solve(fields: Fields) -> str:
        subject = facts.value(fields["subject"], "home") if hop else fields["subject"]
        return facts.value(subject, relation)

    return Family(
        "open_qa_two_hop" if hop else "open_qa",
        lambda rng: {"subject": rng.choice(subjects), "relation": relation},
        solve,
        [question.replace("{s}", "{subject}") for question in questions],
        patterns={"subject": "|".join(subjects)},
        fixed={"relation": relation},
        known=not hop,
        far=hop,
    )


def _holdings(rng: Random, count: int) -> Fields:
    """A passage in which `count` guests each have a coloured thing, and one to ask about."""
    people = rng.sample(GUESTS, count)
    things = [an(f"{rng.choice(COLOURS)} {thing}") for thing in rng.sample(THINGS, count)]
    told = (f"{person} has {thing}." for person, thing in zip(people, things, strict=True))
    return {"passage": " ".join(told), "person": rng.choice(people)}


def _held(fields: Fields) -> str:
    """What the person of the question has, by the passage."""
    start = f"{fields['person']} has "
    sentences = fields["passage"].split(". ")
    found = next((text for text in sentences if text.startswith(start)), start + "nothing")
    return found.removeprefix(start).rstrip(".")


def _to_translate(rng: Random) -> Fields:
    sentence = draw_sentence(rng)
    return {"language": rng.choice(tuple(LANGUAGES)), "english": translate(sentence, "en")}


def fact_families(facts: Facts) -> tuple[Family, ...]:
    asked_over = [name for name in RELATIONS if RELATIONS[name].hop_questions]

    def translated(fields: Fields) -> str:
        return translate(sentences()[fields["english"]], LANGUAGES[fields["language"]])

    return (
        *(_fact_family(facts, name, hop=False) for name in RELATIONS),
        *(_fact_family(facts, name, hop=True) for name in asked_over),
        worded("closed_qa", _held, lambda rng: _holdings(rng, rng.randint(2, 3))),
        worded("closed_qa_long", _held, lambda rng: _holdings(rng, 5)),
        worded("translate", translated, _to_translate),
    )
