"""distinct-n and the spread of rewards."""

import pytest

from flywright.records import Conversation, Dialogue, Lineage
from flywright.synth.diversity import distinct, diversity


def talk(answer, reward=None):
    scores = {} if reward is None else {"reward": reward}
    lineage = Lineage(source="test", scores=scores)
    return Dialogue(id=answer, conversation=Conversation.of("ask", answer), lineage=lineage)


def test_repetition_lowers_distinct_n():
    assert distinct(["a b c", "d e f"], 2) == 1.0
    assert distinct(["a b c", "a b c"], 2) == 0.5
    assert distinct(["a"], 2) == 0.0


def test_only_the_answers_and_their_rewards_count():
    found = diversity([talk("a b", 1.0), talk("a c", 3.0)])
    assert found["distinct_1"] == pytest.approx(3 / 4)
    assert found["reward"]["mean"] == 2.0 and found["reward"]["std"] == 1.0
    assert "reward" not in diversity([talk("a b")])
