"""Questions about the world's facts, questions about a passage, and short translations."""

from random import Random

from flywright.world.facts import RELATIONS, TOWN_RELATIONS, Facts
from flywright.world.families import Family, Fields, worded
from flywright.world.languages import LANGUAGES, Sentence, draw_sentence, translate
from flywright.world.words import COLOURS, GUESTS, THINGS, an

_HOLDING = "{person} has {thing}."


def _fact_family(facts: Facts, relation_name: str) -> Family:
    """Open questions of one relation: every fact is in the corpus, some questions are kept back."""
    subjects = facts.towns if relation_name in TOWN_RELATIONS else facts.people
    questions = RELATIONS[relation_name].questions
    return Family(
        "open_qa",
        tuple(question.replace("{s}", "{subject}") for question in questions),
        lambda rng: {"subject": rng.choice(subjects), "relation": relation_name},
        lambda fields: facts.value(fields["subject"], fields["relation"]),
        patterns={"subject": "|".join(subjects)},
        fixed={"relation": relation_name},
        known=True,
    )


def _two_hop(facts: Facts, relation: str) -> Family:
    return worded(
        "open_qa_two_hop",
        lambda rng: {"subject": rng.choice(facts.people), "relation": relation},
        lambda fields: facts.value(facts.value(fields["subject"], "home"), fields["relation"]),
        like=f"two_hop_{relation}",
        patterns={"subject": "|".join(facts.people)},
        fixed={"relation": relation},
        far=True,
    )


def _holdings(rng: Random, count: int) -> Fields:
    """A passage in which `count` guests each have a coloured thing, and one to ask about."""
    people = rng.sample(GUESTS, count)
    things = [
        an(f"{rng.choice(COLOURS)} {thing}").replace("  ", " ")
        for thing in rng.sample(THINGS, count)
    ]
    passage = " ".join(
        _HOLDING.format(person=person, thing=thing)
        for person, thing in zip(people, things, strict=True)
    )
    return {"passage": passage, "person": rng.choice(people)}


def _held(fields: Fields) -> str:
    """What the person of the question has, by the passage."""
    start = f"{fields['person']} has "
    sentences = fields["passage"].split(". ")
    found = next((text for text in sentences if text.startswith(start)), start + "nothing")
    return found.removeprefix(start).rstrip(".")


_PASSAGE = {"passage": r"(?:[A-Z][a-z]+ has an? [a-z ]+\. ?)+", "person": "|".join(GUESTS)}

CLOSED_QA = worded(
    "closed_qa", lambda rng: _holdings(rng, rng.randint(2, 3)), _held, patterns=_PASSAGE
)
CLOSED_QA_LONG = worded(
    "closed_qa_long",
    lambda rng: _holdings(rng, 5),
    _held,
    like="closed_qa",
    patterns=_PASSAGE,
    far=True,
)


def _to_translate(rng: Random) -> Fields:
    sentence = draw_sentence(rng)
    return {"language": rng.choice(tuple(LANGUAGES)), "english": translate(sentence, "en")}


def _translated(fields: Fields) -> str:
    sentence = Sentence.read(fields["english"])
    return translate(sentence, LANGUAGES[fields["language"]])


TRANSLATE = worded(
    "translate",
    _to_translate,
    _translated,
    patterns={"language": "|".join(LANGUAGES), "english": r"The [a-z ]+\."},
)


def fact_families(facts: Facts) -> tuple[Family, ...]:
    """All families of this file, for one world's facts."""
    open_qa = tuple(_fact_family(facts, name) for name in RELATIONS)
    hops = tuple(_two_hop(facts, name) for name in TOWN_RELATIONS)
    return (*open_qa, *hops, CLOSED_QA, CLOSED_QA_LONG, TRANSLATE)
