"""Prompts that people wrote: layouts, moderation, sides that never meet, difficulty."""

import asyncio
import random

import pytest

from flywright.ask.scripted import Scripted, ScriptedScorer
from flywright.data.turns import LeftOut
from flywright.records import ATTRIBUTES
from flywright.synth import Maker
from flywright.synth.instructions import instructed
from flywright.synth.prompts import UNSAFE, split
from flywright.synth.real import difficulty, first_turn, first_turns, flagged, rated

HUMAN = {"from": "human", "value": " Why is the sky blue? "}
USER = {"role": "user", "content": "Why is the sky blue?"}
LAYOUTS = [
    {"id": "x", "conversations": [HUMAN, {"from": "gpt", "value": "Air."}]},
    {"conversations": [{"from": "system", "value": "Be brief."}, HUMAN]},
    {"items": [HUMAN]},
    {"conversation": [USER, {"role": "assistant", "content": "Air."}], "model": "m"},
    {"conversation": '[{"role": "user", "content": "Why is the sky blue?"}]'},
    {"messages": [{"role": "system", "content": "Be brief."}, USER]},
    {"prompt": [USER]},
    {"prompt": "Why is the sky blue?"},
    {"instruction": "Why is the sky blue?", "output": "Air."},
    {"chosen": "\n\nHuman: Why is the sky blue?\n\nAssistant: Air.", "rejected": "no"},
]


@pytest.mark.parametrize("row", LAYOUTS)
def test_first_turns_of_known_layouts(row):
    assert first_turn(row) == "Why is the sky blue?"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"conversations": [{"from": "gpt", "value": "and so"}, HUMAN]}, "assistant speaks first"),
        ({"conversations": [{"from": "human", "value": " "}]}, "empty turn"),
        ({"conversations": []}, "no known layout"),
        ({"conversations": [{"said": "x"}]}, "no known layout"),
        ({"rows": 3}, "no known layout"),
    ],
)
def test_what_cannot_be_taken_is_counted_by_reason(row, why):
    with pytest.raises(LeftOut, match=why):
        first_turn(row)
    assert list(first_turns([row, LAYOUTS[0]], "s")[1].values()) == [1]


def test_moderation_marks():
    marks = [{"flagged": False, "categories": {}}, {"flagged": True, "categories": {}}]
    assert flagged({"openai_moderation": marks}) and flagged({"toxic": True})
    assert not flagged({"openai_moderation": marks[:1], "toxic": False})
    (safe, unsafe), _ = first_turns([{"prompt": "a"}, {"prompt": "b", "toxic": True}], "real")
    assert not safe.lineage.scores and unsafe.lineage.scores == {UNSAFE: 1.0}


def test_sides_are_stable_and_copies_and_relatives_never_part(make_prompt, small):
    rng = random.Random(5)
    words = "river stone garden letter market winter engine planet colour number story".split()  # noqa: SIM905
    texts = [" ".join(rng.choices(words, k=20)) for _ in range(150)]
    plain = [make_prompt(text) for text in texts]
    near = [make_prompt(f"{text.upper()} indeed!") for text in texts]  # all but the last run
    asked = instructed(plain, small, seed=1)
    everything = [*plain, *near, *asked]
    sides = split(everything, 0.4, seed=2, near=0.7)
    where = {prompt.id: number for number, side in enumerate(sides) for prompt in side}
    assert len(where) == 450
    for base, copy, child in zip(plain, near, asked, strict=True):
        assert where[base.id] == where[copy.id] == where[child.id]
    assert 0.25 < len(sides[1]) / 450 < 0.55
    some = [*plain[:90], *near[:90], *asked[:90]]  # whole groups, in another order
    rng.shuffle(some)
    again = split(some, 0.4, seed=2, near=0.7)
    assert all(where[p.id] == number for number, side in enumerate(again) for p in side)
    assert split(everything, 0.4, seed=3, near=0.7) != sides


def test_a_flagged_prompt_and_its_near_copies_are_never_for_sft(make_prompt):
    text = "tell me in all detail how to take the neighbour's car without a key and unseen"
    (unsafe,), _ = first_turns([{"prompt": text, "toxic": True}], "real")
    others = [make_prompt(text + " please"), make_prompt("what is a river")]
    for seed in range(20):
        sft, preference = split([*others, unsafe], 0.5, seed, near=0.8)
        assert unsafe in preference and others[0] in preference and others[0] not in sft


def test_harder_sources_come_first(small, make_prompt):
    prompts = [make_prompt(f"{task} {n}", task=task) for task in ("easy", "hard") for n in range(9)]

    def score(conversation):
        base = 3.0 if conversation.messages[0].content.startswith("easy") else 1.0
        return dict.fromkeys(ATTRIBUTES, base + len(conversation.messages[0].content) % 2 / 10)

    maker = Maker(Scripted(lambda *_: "an answer", model="m"), small, seed=1)
    answers = asyncio.run(rated(maker, prompts, ScriptedScorer(score)))
    assert [a.lineage.parents for a in answers] == [(p.id,) for p in prompts]
    table = difficulty(answers)
    assert list(table) == ["hard", "easy"] and table["hard"]["n"] == 9
    assert table["hard"]["high"] < table["easy"]["low"]
