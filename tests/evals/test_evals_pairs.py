"""Pairs: a reward model against length alone, and an LLM judge in both orders."""

import asyncio

from flywright.ask import Scripted, ScriptedScorer, TooLong
from flywright.evals.judge_pairs import judge_accuracy
from flywright.evals.pairs import pair_accuracy
from flywright.records import ATTRIBUTES, Comparison, Conversation, Lineage


def pair(name: str, chosen: str, rejected: str, kind: str = "chat") -> Comparison:
    return Comparison(
        id=name,
        conversation=Conversation.of(f"ask {name}"),
        chosen=chosen,
        rejected=rejected,
        task=kind,
        lineage=Lineage(source="test"),
    )


PAIRS = [
    pair("1", "good and long", "bad"),
    pair("2", "good", "bad and long"),
    pair("3", "good", "evil", "code"),
    pair("4", "same", "same", "code"),
]


def test_pair_accuracy_counts_ties_as_wrong_and_stands_beside_length() -> None:
    scorer = ScriptedScorer(
        lambda c: {**dict.fromkeys(ATTRIBUTES, 1.0), "correctness": float("good" in c.last)}
    )
    found = asyncio.run(pair_accuracy(scorer, PAIRS))
    assert found["pair_accuracy"]["mean"] == 0.75 and found["pair_accuracy"]["n"] == 4
    assert found["length_only"]["mean"] == 0.5  # 1, 0, and two halves
    assert found["gain"]["mean"] == 0.25
    assert found["by_kind"]["chat"]["pair_accuracy"]["mean"] == 1.0
    assert found["by_kind"]["code"]["pair_accuracy"]["mean"] == 0.5


def test_a_judge_with_a_favourite_place_decides_nothing() -> None:
    found = asyncio.run(judge_accuracy(Scripted(lambda *_: "[[A]]", "j"), PAIRS))
    assert found["accuracy"]["mean"] == 0.0 and found["outcomes"] == {"inconsistent": 4}
    assert "accuracy_when_decided" not in found


def test_a_judge_that_knows_is_right_where_it_decides() -> None:
    def reply(prompt, _sampling) -> str:  # type: ignore[no-untyped-def]
        first, second = (prompt.last.split(f"<answer {x}>")[1].split("<")[0] for x in "AB")
        if ("good" in first) == ("good" in second):
            return "[[C]]"
        return "[[A]]" if "good" in first else "[[B]]"

    found = asyncio.run(judge_accuracy(Scripted(reply, "j"), PAIRS))
    assert found["accuracy"]["mean"] == 0.75 and found["accuracy_when_decided"]["mean"] == 1.0
    assert found["outcomes"] == {"decided": 3, "tie": 1}


def test_a_judge_whose_context_is_too_small_is_asked_which_letter_is_likelier() -> None:
    def reply(*_) -> str:  # type: ignore[no-untyped-def]
        raise TooLong("no room")

    def likelihood(context: str, letter: str) -> float:
        assert letter in (" A", " B") and context.endswith("is answer")
        first, second = (context.split(f"Answer {x}: ")[1].split("\n")[0] for x in "AB")
        lead = ("good" in first) - ("good" in second)
        return lead if letter == " A" else -lead

    found = asyncio.run(judge_accuracy(Scripted(reply, "j", likelihood), PAIRS))
    assert found["by_likelihood"] == 4
    assert found["accuracy"]["mean"] == 0.75 and found["outcomes"] == {
        "decided": 3, "inconsistent": 1,
    }  # fmt: skip
