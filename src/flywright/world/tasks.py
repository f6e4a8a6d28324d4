"""The register of all task families of a world, and lists of prompts drawn from it."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Literal

from flywright.records import Prompt
from flywright.world import tasks_code, tasks_numbers, tasks_words, tasks_writing
from flywright.world.facts import Facts
from flywright.world.families import Family, normal_text
from flywright.world.tasks_facts import fact_families

Split = Literal["near", "tuning", "far"]
_STALE_ROUNDS = 40  # rounds over all families without a new text: they are drawn dry


def all_families(facts: Facts) -> tuple[Family, ...]:
    """Every family of one world, the far ones too."""
    return (
        *fact_families(facts),
        *tasks_words.FAMILIES,
        *tasks_numbers.FAMILIES,
        *tasks_writing.FAMILIES,
        *tasks_code.FAMILIES,
    )


def _rounds(families: Sequence[Family], rng: Random) -> Iterator[Family]:
    """Families without end, each as often in a round as its weight says, rounds shuffled."""
    one_round = [family for family in families for _ in range(family.weight)]
    while True:
        rng.shuffle(one_round)
        yield from one_round


def draw_prompts(families: Sequence[Family], split: str, count: int, rng: Random) -> list[Prompt]:
    """Up to `count` prompts of a split with different texts; fewer where there are no more."""
    prompts: dict[str, Prompt] = {}
    stale, limit = 0, _STALE_ROUNDS * sum(family.weight for family in families)
    for family in _rounds(families, rng):
        if len(prompts) >= count or stale > limit:
            break
        if (fields := family.fields_of(rng, split)) is None:
            continue
        prompt = family.prompt(fields, rng)
        text = normal_text(" ".join(message.content for message in prompt.conversation.messages))
        stale = stale + 1 if text in prompts else 0
        prompts.setdefault(text, prompt)
    return list(prompts.values())
