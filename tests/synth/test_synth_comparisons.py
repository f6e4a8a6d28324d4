"""Comparisons: each judge decides as it should, all votes stay, both rewards are carried."""

import asyncio
from collections import Counter

import pytest

from flywright.ask import Scripted, ScriptedScorer
from flywright.errors import UserError
from flywright.records import ATTRIBUTES, Check, weighted_reward
from flywright.synth import Maker
from flywright.synth.comparisons import ComparisonSettings, Judges, comparisons


def answerer(name, text):
    return Scripted(lambda prompt, sampling: text.format(seed=sampling.seed % 10007), model=name)


def rate(conversation):
    """Longer answers score higher."""
    return dict.fromkeys(ATTRIBUTES, float(len(conversation.last)))


def reward(text):
    return weighted_reward(dict.fromkeys(ATTRIBUTES, float(len(text))))


def prefers(word):
    """An LLM judge that likes answers with `word`; it names A where both or none have it."""

    def judge(prompt, _sampling):
        first, second = prompt.last.split("<answer B>")
        first = first.split("<answer A>")[1]
        second = second.split("</answer B>")[0]
        return "[[B]]" if word in second and word not in first else "[[A]]"

    return Scripted(judge, model="judge")


@pytest.fixture
def compare(small):
    def run(prompts, answerers, judges, seed=3, judging=("truth", "llm")):
        settings = small.model_copy(update={"judges": judging})
        maker = Maker(Scripted(lambda *_: ""), settings, seed=seed)
        named = {who.model: who for who in answerers}
        return maker, asyncio.run(comparisons(maker, prompts, named, judges))

    return run


def test_the_ground_truth_decides_where_there_is_one(compare, make_prompt):
    checks = (Check(kind="number", args={"answer": 4}),)
    prompts = [make_prompt(f"2 + 2, time {n}", checks=checks) for n in range(4)]
    right, wrong = answerer("right", "It is 4"), answerer("wrong", "I think that it is 5")
    judges = Judges(llm=prefers("think"), scorer=ScriptedScorer(rate, model="rm"))
    maker, pairs = compare(prompts, [wrong, right], judges)
    assert len(pairs) == 4
    for pair, prompt in zip(pairs, prompts, strict=True):
        assert (pair.chosen, pair.rejected, pair.judge) == (
            "It is 4",
            "I think that it is 5",
            "truth",
        )
        assert (pair.lineage.model, pair.rejected_model) == ("right", "wrong")
        assert pair.lineage.parents == (prompt.id,) and pair.lineage.answer_by == "model"
        votes = {vote.judge: vote.preference for vote in pair.lineage.verdicts}
        assert votes == {"truth": 1, "llm:judge": -1, "reward:rm": -1}
        assert pair.chosen_reward == pytest.approx(reward(pair.chosen))
        assert pair.rejected_reward == pytest.approx(reward(pair.rejected))
    maker, pairs = compare(prompts, [right, answerer("too", "4")], judges)
    assert not pairs and maker.counts["comparisons"]["dropped: all answers right"] == 4
    maker, pairs = compare(prompts, [wrong, answerer("too", "6")], judges)
    assert not pairs and maker.counts["comparisons"]["dropped: all answers wrong"] == 4


def test_the_llm_decides_only_where_it_keeps_to_its_choice(compare, prompts):
    good, bad = answerer("good", "a good one"), answerer("bad", "a poor one")
    _, pairs = compare(prompts, [good, bad], Judges(llm=prefers("good")))
    assert [pair.chosen for pair in pairs] == ["a good one"] * len(prompts)
    assert all(pair.judge == "llm" and pair.chosen_reward is None for pair in pairs)
    assert all(pair.lineage.verdicts[0].preference == 1 for pair in pairs)
    maker, pairs = compare(prompts, [good, bad], Judges(llm=prefers("neither")))
    assert not pairs
    assert maker.counts["comparisons"]["dropped: LLM judge undecided: A/A"] == len(prompts)


def test_the_reward_model_takes_its_best_and_its_worst(compare, prompts):
    many = [
        answerer("a", "mid length {seed}"),
        answerer("b", "x"),
        answerer("c", "the longest " * 4),
    ]
    judges = Judges(llm=prefers("x"), scorer=ScriptedScorer(rate, model="rm"))
    _, pairs = compare(prompts, many, judges, judging=("llm", "reward"))
    mine = [pair for pair in pairs if pair.judge == "reward"]
    assert len(mine) == len(prompts) / 2  # the other half were the LLM's to decide
    for pair in mine:
        assert (pair.chosen, pair.rejected) == (("the longest " * 4).strip(), "x")
        votes = {vote.judge: vote.preference for vote in pair.lineage.verdicts}
        assert votes == {"llm:judge": -1, "reward:rm": 1}


def test_like_answers_make_no_pair(compare, prompts):
    same = [answerer("a", "The same."), answerer("b", "the  same")]
    maker, pairs = compare(prompts, same, Judges(llm=prefers("same")))
    assert not pairs and maker.counts["comparisons"]["dropped: answers all alike"] == len(prompts)


def test_samples_differ_by_seed_and_order_does_not_matter(small, prompts, late):
    def noisy(prompt, sampling):
        return f"answer {sampling.seed % 100003} at {sampling.temperature}"

    runs = []
    for seed in range(2):
        maker = Maker(late(seed), small, seed=3)
        named = {"one": late(seed + 5, noisy)}
        judges = Judges(scorer=ScriptedScorer(rate))
        runs.append(asyncio.run(comparisons(maker, prompts, named, judges)))
    assert runs[0] == runs[1] and len(runs[0]) > 0


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("truth", "llm", "reward"), {"truth": 4, "llm": 3, "reward": 3}),
        (("llm", "reward"), {"llm": 5, "reward": 5}),
        (("truth", "reward"), {"truth": 4, "reward": 6}),
        (("truth", "llm"), {"truth": 4, "llm": 6}),
        (("truth",), {"truth": 4}),
    ],
)
def test_a_judge_left_out_leaves_its_prompts_to_the_others(small, make_prompt, names, expected):
    checks = (Check(kind="number", args={"answer": 4}),)
    checked = [make_prompt(f"2 + 2, time {n}", checks=checks) for n in range(4)]
    prompts = [*checked, *(make_prompt(f"say something, time {n}") for n in range(6))]
    named = {"a": answerer("a", "It is 4"), "b": answerer("b", "I think that it is 5")}
    settings = small.model_copy(update={"judges": names})
    maker = Maker(Scripted(lambda *_: ""), settings, seed=3)
    judges = Judges(llm=prefers("think"), scorer=ScriptedScorer(rate, model="rm"))
    pairs = asyncio.run(comparisons(maker, prompts, named, judges))
    assert Counter(pair.judge for pair in pairs) == expected
    assert all(pair.chosen_reward is not None for pair in pairs)
    voters = {vote.judge.partition(":")[0] for pair in pairs for vote in pair.lineage.verdicts}
    assert voters == {*names, "reward"}
    undecided = len(prompts) - sum(expected.values())
    assert maker.counts["comparisons"].get("dropped: no judge", 0) == undecided


def test_harder_pairs_are_samples_of_the_best_model(small, make_prompt):
    def said(name):
        return Scripted(lambda _, sampling: f"{name} {'x' * (sampling.seed % 7)}", model=name)

    prompts = [make_prompt(f"say something, time {n}") for n in range(40)]
    named = {name: said(name) for name in ("weak", "middle", "best")}
    judges = Judges(scorer=ScriptedScorer(rate, model="rm"))
    settings = ComparisonSettings(models_each=2, best="best", harder=0.5, best_samples=6)
    maker = Maker(Scripted(lambda *_: ""), small, seed=3)
    pairs = asyncio.run(comparisons(maker, prompts, named, judges, settings))
    hard = [pair for pair in pairs if pair.lineage.filters == ("samples of the best model",)]
    others = [pair for pair in pairs if not pair.lineage.filters]
    assert 10 < len(hard) < 30 and len(hard) + len(others) == len(pairs) > 35
    assert {(pair.lineage.model, pair.rejected_model) for pair in hard} == {("best", "best")}
    assert {pair.rejected_model for pair in others} == set(named)
    calls = sum(who.calls for who in named.values())
    left = len(prompts) - len(hard)
    assert calls <= 6 * len(hard) + 2 * small.samples * left + 6 * (len(prompts) - len(pairs))
    with pytest.raises(UserError, match=r"best = 'none'.*weak, middle, best"):
        gone = ComparisonSettings(best="none")
        asyncio.run(comparisons(maker, prompts, named, judges, gone))
