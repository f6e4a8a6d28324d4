"""Models as judges: both orders, labels, grades, rewards."""

import asyncio

from flywright.ask import Scripted, ScriptedScorer
from flywright.judge import pairwise, reward
from flywright.records import ATTRIBUTES, Conversation, weighted_reward

ASKED = Conversation.of("Which is best?", "A cat.", "Why?", system="Be kind.")


def position(text: str, answer: str) -> str:
    """Where an answer stands in the judge's prompt."""
    return "A" if text.index(answer) < text.index("<answer B>") else "B"


def judged(reply) -> tuple[int, str, str]:
    judge = Scripted(lambda prompt, _sampling: reply(prompt.last), model="j@1")
    verdict = asyncio.run(pairwise.prefer(judge, ASKED, "good $x one", "poor one"))
    assert verdict.judge == "j@1" and judge.calls == 2
    return verdict.preference, verdict.detail, pairwise.outcome(verdict)


def test_a_preference_must_survive_the_swap() -> None:
    assert judged(lambda text: f"[[{position(text, 'good')}]]") == (1, "A/B", "decided")
    assert judged(lambda text: f"[[{position(text, 'poor')}]]") == (-1, "B/A", "decided")
    assert judged(lambda text: "[[A]]") == (0, "A/A", "inconsistent")
    assert judged(lambda text: "[[C]]") == (0, "C/C", "tie")
    assert judged(lambda text: "Both are fine") == (0, "?/?", "unreadable")


def test_the_judge_sees_the_whole_conversation_and_both_answers() -> None:
    text = pairwise.question(ASKED, "first {a}", "second $b").last
    parts = ["System: Be kind.", "Which is best?", "A cat.", "Why?", "first {a}", "second $b"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "$conversation" not in text


def test_labels_that_disagree_are_none() -> None:
    assert pairwise.parse_label("because\n[[B]]") == "B"
    assert pairwise.parse_label("[[A]] or [[B]]") == "" and pairwise.parse_label("[A]") == ""


def test_the_reward_judge_weighs_all_five_attributes() -> None:
    def rate(conversation: Conversation) -> dict[str, float]:
        wordy = 4.0 if "long" in conversation.last else 1.0
        return {**dict.fromkeys(ATTRIBUTES, 1.0), "verbosity": wordy}

    verdict = asyncio.run(reward.prefer(ScriptedScorer(rate, "r@1"), ASKED, "short", "long"))
    assert verdict.preference == 1 and verdict.judge == "r@1"
    assert verdict.score is not None and abs(verdict.score - 3 * 0.33) < 1e-9
    same = asyncio.run(reward.prefer(ScriptedScorer(rate), ASKED, "short", "brief"))
    assert same.preference == 0 and same.score == 0
    answered = asyncio.run(reward.reward_of(ScriptedScorer(rate), ASKED, "long"))
    assert answered == weighted_reward(rate(ASKED.answered("long")))
