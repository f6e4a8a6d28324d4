"""English prose: sentences and stories, the handbook of facts, and web-like noise."""

from random import Random

from flywright.world.facts import RELATIONS, Fact, Facts, state
from flywright.world.words import ANIMALS, COLOURS, GUESTS, LISTS, THINGS, fill, table

_TEXTS = table("english")


def handbook(facts: Facts, rng: Random) -> str:
    """Two to five facts as sentences: about one subject, or of one relation."""
    if rng.random() < 0.6:
        subject = rng.choice((*facts.people, *facts.towns))
        chosen = [fact for fact in facts.all if fact.subject == subject]
    else:
        relation = rng.choice(tuple(RELATIONS))
        chosen = [fact for fact in facts.all if fact.relation == relation]
    chosen = rng.sample(chosen, min(len(chosen), rng.randint(2, 5)))
    return " ".join(_told(fact, rng) for fact in chosen)


def _told(fact: Fact, rng: Random) -> str:
    sentence = state(fact, rng.choice(RELATIONS[fact.relation].statements))
    link = rng.choice(_TEXTS["links"])
    return link + sentence if sentence.startswith(fact.subject) else sentence


def sentence_about(colour: str, noun: str, rng: Random) -> str:
    """One sentence with the colour and the noun."""
    given = {name: rng.choice(LISTS[name]) for name in ("places", "qualities", "acts")}
    forms = _TEXTS["about"] + (_TEXTS["about_animals"] if noun in ANIMALS else [])
    return rng.choice(
        [fill(form, rng, thing=f"{colour} {noun}".strip(), **given) for form in forms]
    )


def story(rng: Random) -> str:
    """A few everyday sentences about a guest, an animal or a thing."""
    given = {"guest": rng.choice(GUESTS), "noun": rng.choice(ANIMALS + THINGS)}
    first, *others = _TEXTS["story"]
    sentences = [
        fill(first, rng, **given),
        sentence_about(rng.choice(COLOURS), given["noun"], rng),
        *(fill(form, rng, **given) for form in others),
    ]
    return " ".join(rng.sample(sentences, rng.randint(2, 4)))


def noise(text: str, recent: list[str], rng: Random) -> str:
    """The text as a bad crawl has it: repeated whole, cluttered, scrambled, or left as it is."""
    kind = rng.random()
    if kind < 0.3 and recent:
        return rng.choice(recent)
    if kind < 0.45:
        return f"{_TEXTS['junk']}\n{text}\n{_TEXTS['junk']}"
    if kind < 0.6:
        words = text.split()
        rng.shuffle(words)
        return " ".join(words)
    if kind < 0.7:
        return "\n".join([text.split(".")[0]] * 8)
    if kind < 0.8:
        return "".join(rng.choice("#@%^&*()_+=~{}[]<>/\\0123456789xyz ") for _ in range(200))
    return text
