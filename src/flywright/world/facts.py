"""The small world's facts: invented people and towns, learnable from the corpus and nowhere else.

A fact is (subject, relation, value). Each relation brings many ways to state it and to ask for it;
a question names the subject, and its answer is the value, one or two words.
"""

from dataclasses import dataclass
from random import Random

from flywright.files import seed_from
from flywright.world.words import ANIMALS, COLOURS, FOODS, JOBS, invent_names

PEOPLE_COUNT = 24
TOWN_COUNT = 8


@dataclass(frozen=True)
class Relation:
    """How one kind of fact is said and asked; `{s}` is the subject and `{v}` the value."""

    name: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """One true thing of the world."""

    subject: str
    relation: str
    value: str


_RELATIONS = (
    Relation(
        "home",
        (
            "{s} lives in {v}.",
            "The home of {s} is {v}.",
            "{v} is the town where {s} lives.",
            "If you look for {s}, go to {v}.",
            "{s} has a house in {v}.",
            "You can meet {s} in {v}.",
        ),
        ("Where does {s} live?", "In which town does {s} live?", "What is the home of {s}?"),
    ),
    Relation(
        "job",
        (
            "{s} works as a {v}.",
            "The job of {s} is {v}.",
            "{s} is a {v}.",
            "By trade {s} is a {v}.",
            "People know {s} as a good {v}.",
            "{s} has been a {v} for many years.",
        ),
        ("What is the job of {s}?", "What work does {s} do?", "What does {s} work as?"),
    ),
    Relation(
        "pet",
        (
            "The pet of {s} is a {v}.",
            "{s} keeps a {v} as a pet.",
            "{s} has a pet {v}.",
            "At home {s} has a {v}.",
            "{s} feeds a {v} every morning.",
            "The {v} of {s} is well known.",
        ),
        ("What pet does {s} have?", "Which animal does {s} keep?", "What is the pet of {s}?"),
    ),
    Relation(
        "food",
        (
            "The favourite food of {s} is {v}.",
            "{s} likes to eat {v}.",
            "Nothing tastes better to {s} than {v}.",
            "{s} eats {v} every day.",
            "When {s} is hungry, {v} is best.",
            "Give {s} some {v}, and all is well.",
        ),
        (
            "What is the favourite food of {s}?",
            "What does {s} like to eat?",
            "Which food does {s} like best?",
        ),
    ),
    Relation(
        "colour",
        (
            "The favourite colour of {s} is {v}.",
            "{s} likes the colour {v} best.",
            "{s} always wears {v}.",
            "The coat of {s} is {v}.",
            "{v} is the colour that {s} likes.",
            "{s} paints every door {v}.",
        ),
        (
            "What is the favourite colour of {s}?",
            "Which colour does {s} like best?",
            "What colour does {s} like?",
        ),
    ),
    Relation(
        "tower",
        (
            "The tower of {s} is {v}.",
            "{s} has a {v} tower.",
            "In {s} stands a {v} tower.",
            "The people of {s} keep their tower {v}.",
            "From far away you see the {v} tower of {s}.",
        ),
        ("What colour is the tower of {s}?", "Which colour has the tower of {s}?"),
    ),
    Relation(
        "dish",
        (
            "{s} is known for its {v}.",
            "The dish of {s} is {v}.",
            "In {s} people cook {v}.",
            "Visitors come to {s} for the {v}.",
            "The market of {s} sells the best {v}.",
        ),
        ("What food is {s} known for?", "What is the dish of {s}?"),
    ),
)
RELATIONS: dict[str, Relation] = {relation.name: relation for relation in _RELATIONS}
TOWN_RELATIONS = ("tower", "dish")


class Facts:
    """All facts of one seed: about 24 people with five facts each and 8 towns with two."""

    def __init__(self, seed: int):
        rng = Random(seed_from(seed, "facts"))
        self.people = tuple(invent_names(rng, PEOPLE_COUNT))
        self.towns = tuple(invent_names(rng, TOWN_COUNT, ending="dal"))
        values = {"home": self.towns, "job": JOBS, "pet": ANIMALS, "food": FOODS}
        values |= {"colour": COLOURS, "tower": COLOURS, "dish": FOODS}
        self.all: tuple[Fact, ...] = tuple(
            Fact(subject, relation, rng.choice(values[relation]))
            for relation in RELATIONS
            for subject in (self.towns if relation in TOWN_RELATIONS else self.people)
        )
        self.values = values
        self._value = {(fact.subject, fact.relation): fact.value for fact in self.all}

    def value(self, subject: str, relation: str) -> str:
        """The true value; KeyError where the world says nothing."""
        return self._value[subject, relation]

    def wrong_value(self, fact: Fact, rng: Random) -> str:
        """A value of the right kind that is not true of this subject."""
        return rng.choice([v for v in self.values[fact.relation] if v != fact.value])

    def about(self, subject: str) -> list[Fact]:
        """Every fact of one subject."""
        return [fact for fact in self.all if fact.subject == subject]


def state(fact: Fact, statement: str) -> str:
    """The fact as a sentence, capitalised, with "an" where it belongs."""
    value = fact.value
    if value[0] in "aeiou":
        statement = statement.replace(" a {v}", " an {v}")
    text = statement.format(s=fact.subject, v=value)
    return text[0].upper() + text[1:]
