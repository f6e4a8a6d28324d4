"""Annotators keep HelpSteer2's rules, and their labels follow the true quality of an answer."""

from random import Random

import pytest

from flywright.records import Rating
from flywright.world import World
from flywright.world.annotators import Annotator, Pool, label, most_agreeing, spread
from flywright.world.ratings import DEFECTS

TRUTH = (4, 4, 4, 1, 1)


@pytest.fixture(scope="module")
def ratings() -> list[Rating]:
    return World(3).ratings(600)


def fixed(*helpfulness: int) -> Pool:
    """A pool whose annotators always say these numbers for helpfulness."""
    pool = Pool(0)
    pool.annotators = [Annotator((value, 0.0, 0.0, 0.0, 0.0), 0.0) for value in helpfulness]
    return pool


def same_order(pool: Pool) -> Random:
    """A source of chance that asks the annotators in their order."""
    rng = Random(0)
    rng.sample = lambda population, count: list(population)[:count]  # type: ignore[method-assign]
    return rng


def test_three_annotators_where_they_agree_and_five_where_not() -> None:
    calm, torn = fixed(3, 2, 1, 0, 0), fixed(4, 1, 0, 4, 4)
    assert len(calm.annotations((0, 0, 0, 0, 0), same_order(calm))) == 3
    assert len(torn.annotations((0, 0, 0, 0, 0), same_order(torn))) == 5


def test_the_three_most_in_agreement_make_the_label() -> None:
    torn = fixed(4, 1, 0, 4, 3)
    kept = most_agreeing(torn.annotations((0, 0, 0, 0, 0), same_order(torn)))
    assert sorted(scores[0] for scores in kept) == [3, 4, 4] and spread(kept) == 1
    assert torn.rate((0, 0, 0, 0, 0), same_order(torn)) == (4, 0, 0, 0, 0)


def test_the_label_is_a_rounded_mean() -> None:
    assert label([(4, 0, 1, 1, 2), (3, 0, 1, 2, 2), (3, 1, 1, 2, 2)]) == (3, 0, 1, 2, 2)


def test_an_answer_on_which_people_disagree_has_no_label() -> None:
    torn = fixed(0, 0, 4, 4, 2)
    torn.annotators = [*torn.annotators[:4], Annotator((8.0, 0.0, 0.0, 0.0, 0.0), 0.0)]
    assert torn.rate((0, 0, 0, 0, 0), same_order(torn)) is not None
    kept = most_agreeing([(0, 0, 0, 0, 0), (4, 0, 0, 0, 0), (2, 0, 0, 0, 0)])
    assert spread(kept) == 4


def test_two_different_answers_a_prompt(ratings: list[Rating]) -> None:
    assert len(ratings) == 600
    for first, second in zip(ratings[::2], ratings[1::2], strict=True):
        assert first.conversation.without_answer() == second.conversation.without_answer()
        assert first.conversation.last != second.conversation.last
        assert first.lineage.answer_by == "model" and not first.lineage.verdicts


def test_labels_follow_the_gold_and_have_noise(ratings: list[Rating]) -> None:
    gold = [rating.lineage.scores["gold_helpfulness"] for rating in ratings]
    given = [rating.helpfulness or 0.0 for rating in ratings]
    apart = [abs(a - b) for a, b in zip(gold, given, strict=True)]
    assert 0.1 < sum(apart) / len(apart) < 0.6
    assert all(value == int(value) and 0 <= value <= 4 for value in given)


def test_every_defect_occurs_and_right_is_rated_best(ratings: list[Rating]) -> None:
    means = {}
    for name in DEFECTS:
        found = [r.helpfulness or 0.0 for r in ratings if r.lineage.filters == (f"defect:{name}",)]
        assert found, name
        means[name] = sum(found) / len(found)
    assert max(means, key=lambda name: means[name]) == "right"
    assert means["wrong"] < 1 < means["polite"]


def test_validation_uses_heldout_prompts() -> None:
    world = World(3)
    parents = {
        parent for rating in world.rated_heldout("near", 60) for parent in rating.lineage.parents
    }
    assert parents and parents <= {prompt.id for prompt in world.heldout("near", 60)}
