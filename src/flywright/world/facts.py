"""The small world's facts: invented people and towns, learnable from the corpus and nowhere else.

A fact is (subject, relation, value). Each relation brings many ways to state it and to ask for it;
a question names the subject, and its answer is the value, one or two words.
"""

from dataclasses import dataclass
from random import Random

from flywright.files import seed_from
from flywright.world.words import ANIMALS, COLOURS, FOODS, JOBS, invent_names, table

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


RELATIONS: dict[str, Relation] = {
    name: Relation(name, tuple(said["statements"]), tuple(said["questions"]))
    for name, said in table("relations").items()
}
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
