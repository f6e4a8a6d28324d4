"""Questions about the world's facts, questions about a passage, and short translations."""

from random import Random

from flywright.world.facts import RELATIONS, Facts
from flywright.world.families import Family, Fields, worded
from flywright.world.languages import LANGUAGES, draw_sentence, read_sentence, translate
from flywright.world.words import COLOURS, GUESTS, THINGS, an


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


def _translated(fields: Fields) -> str:
    return translate(read_sentence(fields["english"]), LANGUAGES[fields["language"]])


CLOSED_QA = worded("closed_qa", _held, lambda rng: _holdings(rng, rng.randint(2, 3)))
CLOSED_QA_LONG = worded("closed_qa_long", _held, lambda rng: _holdings(rng, 5))
TRANSLATE = worded("translate", _translated, _to_translate)


def fact_families(facts: Facts) -> tuple[Family, ...]:
    """All families of this file, for one world's facts."""
    open_qa = (_fact_family(facts, name, hop=False) for name in RELATIONS)
    hops = (
        _fact_family(facts, name, hop=True) for name in RELATIONS if RELATIONS[name].hop_questions
    )
    return (*open_qa, *hops, CLOSED_QA, CLOSED_QA_LONG, TRANSLATE)
