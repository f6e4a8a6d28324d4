"""The rules of SPEC 5.6: three annotators, two more if they differ, the closest three."""

import pytest

from flywright.annotate.aggregate import (
    aggregate_ratings,
    is_open,
    most_agreeing,
    preferred,
    wanted_labels,
)
from flywright.annotate.labels import PairLabel, RatingLabel, Skip, View
from flywright.records import Comparison, Conversation, Dialogue, Lineage

LINEAGE = Lineage(source="test", answer_by="model")


def label(helpfulness, others=2):
    return RatingLabel(
        helpfulness=helpfulness,
        correctness=others,
        coherence=others,
        complexity=others,
        verbosity=others,
        confidence=1,
    )


def signed(*labels):
    return [(f"p{index}", one) for index, one in enumerate(labels)]


def answer(name, prompt="Q"):
    return Dialogue(id=name, conversation=Conversation.of(prompt, name), lineage=LINEAGE)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([], 3), ([0, 4], 3), ([1, 2, 3], 3), ([1, 3, 3], 3), ([0, 3, 3], 5), ([0, 3, 3, 3], 5)],
)
def test_two_more_if_helpfulness_is_more_than_two_apart(values, wanted):
    assert wanted_labels(values) == wanted


def test_an_item_closes_when_it_has_enough_labels_or_two_flags():
    assert is_open([2, 2, None])
    assert not is_open([2, 2, 2])
    assert is_open([0, 4, 4])
    assert not is_open([0, 4, 4, 4, 4])
    assert not is_open([None, None])


def test_the_three_that_agree_most_are_kept():
    kept = most_agreeing(signed(*(label(h) for h in (0, 4, 3, 1, 4))))
    assert [one.helpfulness for _, one in kept] == [4, 3, 4]
    # helpfulness alike: the other attributes decide
    kept = most_agreeing(signed(label(2, 0), label(2, 3), label(2, 3), label(2, 3)))
    assert [one.correctness for _, one in kept] == [3, 3, 3]


def test_ties_do_not_depend_on_the_order_of_arrival():
    labels = signed(*(label(h) for h in (0, 1, 2, 3, 4)))
    assert most_agreeing(labels) == most_agreeing(labels[::-1])


def test_the_label_is_the_rounded_mean_of_the_kept():
    [rating], _ = aggregate_ratings([(answer("a"), signed(label(3), label(4), label(4)))])
    assert rating.helpfulness == 4.0  # 3.67
    assert rating.correctness == 2.0
    assert [v.judge for v in rating.lineage.verdicts] == ["p0", "p1", "p2"]
    assert rating.lineage.answer_by == "model"


def test_a_prompt_whose_annotators_disagree_goes_with_all_its_answers():
    torn = signed(*(label(h) for h in (0, 0, 2, 4, 4)))
    split = signed(*(label(h) for h in (0, 3, 0, 3, 4)))
    calm = signed(label(2), label(2), label(3))
    rows = [(answer("a"), torn), (answer("b"), calm), (answer("c", "other"), split)]
    kept, _ = aggregate_ratings(rows)
    assert [rating.id for rating in kept] == ["a", "b", "c"]  # best three within 2
    short = signed(label(0), label(3), label(3))
    rows[0] = (answer("a"), short)
    kept, dropped = aggregate_ratings(rows)
    assert [rating.id for rating in kept] == ["c"]
    assert dropped == {"too few labels": 2}


def test_spread_of_the_kept_above_two_drops_the_prompt():
    labels = signed(label(0, 2), label(3, 2), label(3, 2), label(1, 4), label(4, 0))
    assert [one.helpfulness for _, one in most_agreeing(labels)] == [0, 3, 3]
    calm = signed(label(2), label(2), label(3))
    kept, dropped = aggregate_ratings([(answer("a"), labels), (answer("b"), calm)])
    assert kept == []
    assert dropped == {"annotators disagree": 2}


def test_flags_drop_a_prompt_and_do_not_count_as_labels():
    flagged = signed(label(2), Skip(skip="coding"), Skip(skip="coding"))
    rows = [(answer("a"), flagged), (answer("b"), signed(*[label(2)] * 3))]
    kept, dropped = aggregate_ratings(rows)
    assert kept == []
    assert dropped == {"flagged": 2}


def pair(first, second):
    views = [View(helpfulness=h, truthfulness=t, length="right") for h, t in (first, second)]
    return PairLabel(chosen=views[0], rejected=views[1])


def test_the_majority_prefers():
    item = Comparison(
        id="x",
        conversation=Conversation.of("Q"),
        chosen="one",
        rejected="two",
        rejected_model="m2",
        lineage=Lineage(source="test", model="m1"),
    )
    win, loss, tie = pair((5, 5), (1, 5)), pair((1, 1), (1, 5)), pair((2, 3), (3, 2))
    assert [one.preference for one in (win, loss, tie)] == [1, -1, 0]
    found = preferred(item, [("a", loss), ("b", loss), ("c", win)])
    assert found is not None
    assert (found.chosen, found.rejected) == ("two", "one")
    assert (found.lineage.model, found.rejected_model) == ("m2", "m1")
    assert [v.preference for v in found.lineage.verdicts] == [-1, -1, 1]
    assert preferred(item, [("a", win), ("b", loss), ("c", tie)]) is None
    assert preferred(item, [("a", win), ("b", win)]) is None
