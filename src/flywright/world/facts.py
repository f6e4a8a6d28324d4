"""The small world's facts: invented people and towns, learnable from the corpus and nowhere else.

A fact is (subject, relation, value). Each relation brings many ways to state it and to ask for it;
a question names the subject, and its answer is the value, one or two words.
"""

from dataclasses import dataclass, field
from random import Random

from flywright.files import seed_from
from flywright.world.words import LISTS, invent_names, table

PEOPLE_COUNT = 24
TOWN_COUNT = 8


@dataclass(frozen=True)
class Relation:
    """One kind of fact: whose it is, its list of values, how it is said and asked.

    `hop_questions` ask a person's home town for it.
    """

    of: str
    values: str
    statements: list[str]
    questions: list[str]
    hop_questions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Fact:
    subject: str
    relation: str
    value: str


RELATIONS = {name: Relation(**said) for name, said in table("relations").items()}


class Facts:
    """All facts of one seed: about 24 people with five facts each and 8 towns with two."""

    def __init__(self, seed: int):
        rng = Random(seed_from(seed, "facts"))
        self.people = tuple(invent_names(rng, PEOPLE_COUNT))
        self.towns = tuple(invent_names(rng, TOWN_COUNT, ending="dal"))
        lists = {**LISTS, "people": self.people, "towns": self.towns}
        self.subjects = {name: lists[relation.of] for name, relation in RELATIONS.items()}
        self.values = {name: lists[relation.values] for name, relation in RELATIONS.items()}
        self.all: tuple[Fact, ...] = tuple(
            Fact(subject, relation, rng.choice(self.values[relation]))
            for relation in RELATIONS
            for subject in self.subjects[relation]
        )
        self._value = {(fact.subject, fact.relation): fact.value for fact in self.all}

    def value(self, subject: str, relation: str) -> str:
        """The true value; KeyError where the world says nothing."""
        return self._value[subject, relation]

    def wrong_value(self, subject: str, relation: str, rng: Random) -> str:
        """A value of the right kind that is not true of this subject."""
        truth = self.value(subject, relation)
        return rng.choice([value for value in self.values[relation] if value != truth])


def state(fact: Fact, statement: str) -> str:
    """The fact as a sentence, capitalised, with "an" where it belongs."""
    if fact.value[0] in "aeiou":
        statement = statement.replace(" a {v}", " an {v}")
    text = statement.format(s=fact.subject, v=fact.value)
    return text[0].upper() + text[1:]
