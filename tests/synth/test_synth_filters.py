"""Filters: planted copies and benchmark items are found, others stay, and the counts are told."""

import asyncio
import random

import pytest

from flywright.ask import ScriptedScorer
from flywright.records import (
    ATTRIBUTES,
    Comparison,
    Conversation,
    Dialogue,
    Lineage,
    weighted_reward,
)
from flywright.synth.decontaminate import Benchmarks, decontaminate
from flywright.synth.filters import (
    Pool,
    by_reward,
    chosen_quality,
    exact,
    near,
    preference_sets,
)
from flywright.synth.texts import normal, tokens

WORDS = [f"word{n}" for n in range(400)]


def text(seed, length=40):
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def test_exact_copies_keep_the_first(make_prompt):
    originals = [make_prompt(text(n)) for n in range(20)]
    copies = [make_prompt(f"  {text(n).upper()}.") for n in range(0, 20, 2)]
    kept, dropped = exact([*originals, *copies])
    assert kept == originals
    assert [copy.of for copy in dropped] == [originals[n].id for n in range(0, 20, 2)]


def test_normal_keeps_what_changes_the_meaning():
    assert normal("What  is 3 + 4?") == normal("what is 3 + 4")
    assert tokens("3 + 4") != tokens("3 - 4")
    assert normal("Is it so") != normal("It is so")


def test_near_copies_are_found_and_others_kept(make_prompt):
    originals = [make_prompt(text(n)) for n in range(60)]
    reworded = []
    for n in range(0, 60, 3):
        words = text(n).split()
        words[0] = "altered"
        reworded.append(make_prompt(" ".join(words)))
    kept, dropped = near([*originals, *reworded], 0.8)
    assert kept == originals
    assert len(dropped) == 20 and all(0.8 <= copy.likeness < 1 for copy in dropped)


def test_filters_that_are_off_keep_everything(make_prompt):
    records = [make_prompt(text(n)) for n in (1, 1, 2)]
    assert near(records, 0.0) == (records, [])
    exam = [("exam", text(1))]
    assert decontaminate(records, Benchmarks(exam, share=0.0)) == (records, [])
    assert len(near(records, 0.8)[0]) == 2 and len(decontaminate(records, Benchmarks(exam))[0]) == 1


def test_the_pool_agrees_with_comparing_all_pairs():
    """The slow twin: Jaccard of every pair, no MinHash."""
    rng = random.Random(4)
    texts = []
    for n in range(120):
        words = text(n % 40, 20).split()
        for _ in range(rng.randint(0, 3)):
            words[rng.randrange(20)] = rng.choice(WORDS)
        texts.append(" ".join(words))

    def shingles(of):
        words = tokens(of)
        return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}

    pool, kept = Pool(0.7), []
    for candidate in texts:
        mine = shingles(candidate)
        likest = max(
            (len(mine & other) / len(mine | other) for other in kept),
            default=0.0,
        )
        assert (pool.likest(candidate) is not None) == (likest >= 0.7)
        if likest < 0.7:
            pool.add(candidate)
            kept.append(mine)
    assert 40 <= len(kept) < 120


def test_decontamination_finds_planted_items_and_says_which(make_prompt):
    benchmark = [("bench-a", text(1000 + n, 20)) for n in range(10)] + [
        ("bench-b", "How far is it")
    ]
    clean = [make_prompt(text(n)) for n in range(30)]
    planted = [
        make_prompt(f"{text(50 + n, 8)} {benchmark[n][1]} {text(70 + n, 8)}") for n in range(10)
    ]
    part = make_prompt(" ".join(benchmark[3][1].split()[:16]).upper())
    short = make_prompt("Tell me: how far is it?")
    kept, hits = decontaminate(
        [*clean, *planted, part, short], Benchmarks(benchmark, methods=("words",))
    )
    assert kept == clean
    assert [hit.record for hit in hits] == [record.id for record in [*planted, part, short]]
    assert hits[0].benchmark == "bench-a" and hits[0].item == benchmark[0][1]
    assert hits[0].words in benchmark[0][1] and hits[0].share == 1.0
    assert hits[-1].benchmark == "bench-b"


def test_a_shared_template_is_no_hit_and_tiny_items_hit_nothing(make_prompt):
    benchmark = [("bench", "Sort these words: river lake sea pond brook ocean"), ("bench", "Why")]
    record = make_prompt("Sort these words: apple pear plum grape cherry fig. Why?")
    assert decontaminate([record], Benchmarks(benchmark, 4, methods=("words",))) == ([record], [])


def dialogue(number):
    conversation = Conversation.of(f"q{number}", "a" * number)
    return Dialogue(id=f"d{number}", conversation=conversation, lineage=Lineage(source="t"))


def test_dialogues_below_the_reward_are_dropped_and_scores_kept(maker):
    def rate(conversation):
        return {name: float(len(conversation.last)) for name in ATTRIBUTES}

    threshold = weighted_reward(dict.fromkeys(ATTRIBUTES, 4.0))
    made = asyncio.run(
        by_reward(maker, [dialogue(n) for n in range(1, 8)], ScriptedScorer(rate), threshold)
    )
    assert [record.id for record in made] == ["d4", "d5", "d6", "d7"]
    assert maker.counts["reward filter"]["dropped: reward below the threshold"] == 3
    assert made[0].lineage.scores["reward"] == pytest.approx(threshold)
    assert made[0].lineage.scores["helpfulness"] == 4.0 and made[0].lineage.filters


def pair(number, reward, judge):
    return Comparison(
        id=f"c{number}",
        conversation=Conversation.of("q"),
        chosen="a",
        rejected="b",
        chosen_reward=reward,
        rejected_reward=0.0,
        judge=judge,
        lineage=Lineage(source="t"),
    )


def test_chosen_quality_spares_the_ground_truth(small):
    rewards = [(1.0, "llm"), (3.0, "llm"), (0.0, "truth"), (2.0, "reward"), (None, "llm")]
    pairs = [pair(n, reward, judge) for n, (reward, judge) in enumerate(rewards)]
    kept, counts = chosen_quality(pairs, 2.0)
    assert [p.id for p in kept] == ["c1", "c2", "c3"]
    assert counts == {"in": 5, "out": 3, "exempt": 1, "dropped": 2}
    settings = small.model_copy(update={"dpo_quality": 2.5, "rpo_quality": 0.5})
    dpo, rpo, both = preference_sets(pairs, settings)
    assert [p.id for p in dpo] == ["c1", "c2"] and [p.id for p in rpo] == ["c0", "c1", "c2", "c3"]
    assert both["dpo"]["dropped"] == 3 and both["rpo"]["dropped"] == 1
