"""The report of what judges did: agreement beyond chance, length and place."""

import random

import pytest

from flywright.judge.agreement import judged, kappa, table
from flywright.records import Comparison, Conversation, Lineage, Verdict


def pair(number, judge, votes, chosen="yes", rejected="no", details=None):
    cast = tuple(
        Verdict(judge=name, preference=vote, detail=(details or {}).get(name, ""))
        for name, vote in votes.items()
    )
    return Comparison(
        id=str(number),
        conversation=Conversation.of("q"),
        chosen=f"{chosen} {number}",
        rejected=f"{rejected} {number}",
        judge=judge,
        lineage=Lineage(source="comparisons", verdicts=cast),
    )


def test_kappa_of_known_tables():
    # the textbook case: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: 0.7 observed, 0.5 by chance
    votes = [(1, 1)] * 20 + [(1, -1)] * 5 + [(-1, 1)] * 10 + [(-1, -1)] * 15
    assert kappa(votes) == pytest.approx(0.4)
    assert kappa([(1, 1), (-1, -1)]) == 1.0 and kappa([(1, -1), (-1, 1)]) == -1.0
    assert kappa([(1, 1), (1, 1)]) is None


def test_agreement_does_not_hang_on_the_chosen_answer_being_first():
    # the truth always votes for the chosen one; a judge that tosses a coin agrees by chance alone
    rng = random.Random(3)
    pairs = [pair(n, "truth", {"truth": 1, "llm:m": rng.choice((1, -1))}) for n in range(400)]
    found = judged(pairs)["agreement"]["llm:m ~ truth"]
    assert found["n"] == 400 and abs(found["kappa"]) < 0.12 and abs(found["agree"] - 0.5) < 0.08
    same = [pair(n, "truth", {"truth": 1, "llm:m": 1}) for n in range(40)]
    assert judged(same)["agreement"]["llm:m ~ truth"]["kappa"] == 1.0


def test_length_place_and_people():
    labels = ["A/B", "A/A", "A/A", "B/B", "C/C", "A/?"]
    votes = [1, 0, 0, 0, 0, 0]
    pairs = [
        pair(n, "truth", {"truth": 1, "llm:m": vote}, "a longer answer", "no", {"llm:m": label})
        for n, (vote, label) in enumerate(zip(votes, labels, strict=True))
    ]
    pairs.append(pair(9, "llm", {"llm:m": 1}, "no", "a longer answer", {"llm:m": "A/B"}))
    turned = pairs[0].model_copy(update={"chosen": pairs[0].rejected, "rejected": pairs[0].chosen})
    report = judged(pairs, [turned, pairs[1]])
    assert report["position"] == {
        "llm:m": {
            "kept": 1,
            "first twice": 2,
            "second twice": 1,
            "tie": 1,
            "one order undecided": 1,
        }
    }
    preferred = report["length"]["longer_preferred"]
    assert preferred["truth"] == {"share": 1.0, "n": 6} and preferred["llm:m"] == {
        "share": 0.5,
        "n": 2,
    }
    assert preferred["people"] == {"share": 0.5, "n": 2}
    assert report["agreement"]["people ~ truth"]["agree"] == 0.5
    assert report["decided_by"] == {"truth": 6, "llm": 1}
    text = table(report)
    assert "| pairs | all | truth | llm |\n| --- | --- | --- | --- |\n| all | 7 | 6 | 1 |" in text
    assert "| people ~ truth | 2 | 0.500 |" in text
    assert "| all | 0 |" in table(judged([]))
