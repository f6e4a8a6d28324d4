"""English prose of the corpus: the handbook of facts, everyday stories, and web-like noise."""

from random import Random

from flywright.world.facts import RELATIONS, Fact, Facts, state
from flywright.world.tasks_writing import sentence_about
from flywright.world.words import (
    ANIMALS,
    COLOURS,
    FOODS,
    GUESTS,
    JOBS,
    PLACES,
    QUALITIES,
    THINGS,
    TIMES,
    VERBS,
    an,
)

_LINKS = ("", "", "", "As all know, ", "It is said that ", "We learn that ")
_JUNK = "click here to accept all cookies | login | share | $$$ best price %% !!! >>> &nbsp;"


class Handbook:
    """States the facts: each paragraph is about one subject, or about one relation."""

    def __init__(self, facts: Facts):
        self._facts = facts
        self._subjects = (*facts.people, *facts.towns)

    def paragraph(self, rng: Random) -> str:
        """Two to five facts as sentences."""
        if rng.random() < 0.6:
            chosen = self._facts.about(rng.choice(self._subjects))
        else:
            relation = rng.choice(tuple(RELATIONS))
            chosen = [fact for fact in self._facts.all if fact.relation == relation]
        chosen = rng.sample(chosen, min(len(chosen), rng.randint(2, 5)))
        return " ".join(self._sentence(fact, rng) for fact in chosen)

    def _sentence(self, fact: Fact, rng: Random) -> str:
        sentence = state(fact, rng.choice(RELATIONS[fact.relation].statements))
        link = rng.choice(_LINKS)
        if not link or not sentence.startswith(fact.subject):
            return sentence
        return link + sentence


def story(rng: Random) -> str:
    """A few everyday sentences about a guest, an animal or a thing."""
    guest, noun = rng.choice(GUESTS), rng.choice(ANIMALS + THINGS)
    sentences = [
        f"{guest} {rng.choice(VERBS)} {an(rng.choice(COLOURS))} {rng.choice(THINGS)}.",
        sentence_about(rng.choice(COLOURS), noun, rng),
        f"It is {rng.choice(QUALITIES)} and {rng.choice(QUALITIES)}.",
        f"{guest} is a {rng.choice(JOBS)} and likes {rng.choice(FOODS)}.",
        f"{rng.choice(TIMES).capitalize()} the {noun} is {rng.choice(PLACES)}.",
        f"{guest} has {an(rng.choice(QUALITIES))} {noun} and {an(rng.choice(THINGS))}.",
    ]
    return " ".join(rng.sample(sentences, rng.randint(2, 4)))


def noise(text: str, recent: list[str], rng: Random) -> str:
    """The text as a bad crawl has it: repeated whole, cluttered, scrambled, or left as it is."""
    kind = rng.random()
    if kind < 0.3 and recent:
        return rng.choice(recent)
    if kind < 0.45:
        return f"{_JUNK}\n{text}\n{_JUNK}"
    if kind < 0.6:
        words = text.split()
        rng.shuffle(words)
        return " ".join(words)
    if kind < 0.7:
        return "\n".join([text.split(".")[0]] * 8)
    if kind < 0.8:
        return "".join(rng.choice("#@%^&*()_+=~{}[]<>/\\0123456789xyz ") for _ in range(200))
    return text
