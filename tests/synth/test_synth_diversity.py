"""Near copies turned away while prompts are made; distinct-n and the spread of rewards."""

import asyncio

import pytest

from flywright.records import Conversation, Dialogue, Lineage
from flywright.synth import Maker
from flywright.synth.diversity import Novelty, distinct, diversity
from flywright.synth.prompts import open_qa


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


class Repeating:
    """Answers a list for each call of a topic: the first with copies, then others."""

    def __init__(self):
        self.asked = []

    def __call__(self, prompt, _sampling):
        self.asked.append(prompt.last)
        shown = prompt.last.count("\n- ")
        texts = [f"What is the colour of stone number {n} in the old town?" for n in (1, 2, 3)]
        if shown:
            texts = [
                f"Why did {n + shown} ships sail from {prompt.last[-40:-30]!r}" for n in range(3)
            ]
        return "\n".join(f"{n}. {text}" for n, text in enumerate(texts, 1))


def test_near_copies_are_asked_again_within_the_rounds(small, late):
    settings = small.model_copy(update={"revisions": 0, "questions": 3, "near_duplicate": 0.5})
    answer = Repeating()
    maker = Maker(late(1, answer), settings, seed=5)
    novelty = Novelty(0.5, rounds=2)
    made = asyncio.run(open_qa(maker, ["rivers", "bees"], novelty))
    texts = [prompt.conversation.last for prompt in made]
    assert len(set(texts)) == len(texts)
    told = maker.counts["open_qa: novelty"]
    assert told["taken"] == len(texts) < told["taken"] + told["near copies"] + told["copies"]
    asked_again = [text for text in answer.asked if "do not repeat" in text]
    assert asked_again and all("- What is the colour" in text for text in asked_again)
    assert len(answer.asked) == 4  # each topic twice
    other = Maker(late(2, Repeating()), settings, seed=5)
    assert asyncio.run(open_qa(other, ["rivers", "bees"], Novelty(0.5, rounds=2))) == made


def test_without_rounds_left_a_quota_stays_open(small, late):
    settings = small.model_copy(update={"revisions": 0, "questions": 3})
    maker = Maker(late(1, Repeating()), settings, seed=5)
    made = asyncio.run(open_qa(maker, ["rivers", "bees"], Novelty(0.5, rounds=1)))
    assert len(made) < 6 and maker.counts["open_qa: novelty"]["below their quota"] >= 1


def test_novelty_of_zero_turns_only_equal_texts_away():
    novelty = Novelty(0.0, 1)
    assert novelty.takes("How deep is it?") and novelty.takes("How deep is it now?")
    assert not novelty.takes("how  deep is it")
