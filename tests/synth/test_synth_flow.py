"""A flow: every record ends ok, dropped or failed; the result does not know who finished first."""

import asyncio

import pytest

from flywright.ask import AskError, Scripted
from flywright.errors import FlywrightError
from flywright.records import Document
from flywright.synth import Dropped, Maker, SynthSettings
from flywright.synth.dialogues import dialogues, two_turn
from flywright.synth.instructions import instructed, revised
from flywright.synth.prompts import closed_qa, coding, math, mix, open_qa, split, writing
from flywright.synth.topics import topics

DOCUMENTS = [
    Document(text=f"The river {n} is long. It ends in lake {n}.", source="t") for n in range(4)
]


def test_endings_are_counted_and_keep_their_order():
    async def step(number, ask):
        await asyncio.sleep(0.001 * (7 - number % 7))
        if number % 5 == 0:
            raise Dropped("fives")
        if number == 7:
            raise AskError("busy", retryable=True)
        return [] if number == 8 else [ask + number] * (number % 3)

    maker = Maker(100, SynthSettings(concurrency=4), 1, failed=[])
    made = asyncio.run(maker.run("numbers", step, range(1, 12)))
    assert made == [101, 102, 102, 104, 111, 111]
    assert maker.counts["numbers"] == {
        "in": 11,
        "ok": 4,
        "out": 6,
        "failed": 1,
        "dropped: fives": 2,
        "dropped: gave nothing": 4,
    }
    assert [(one.id, one.fault) for one in maker.failed] == [("7", "failed")]
    with pytest.raises(FlywrightError, match=r"numbers: 1 of 11 records failed.*busy"):
        asyncio.run(Maker(100, SynthSettings(), 1).run("numbers", step, range(1, 12)))


def test_a_fault_of_the_program_is_raised():
    async def step(_number, _ask):
        raise KeyError("bug")

    with pytest.raises(KeyError):
        asyncio.run(Maker(None, SynthSettings(), 1).run("buggy", step, range(3)))


async def everything(maker):
    """All prompt flows and the dialogues on them."""
    found = await topics(maker, given=["sailing"])
    questions = await open_qa(maker, found)
    tasks = await writing(maker, found)
    closed = await closed_qa(maker, DOCUMENTS)
    problems = [*await math(maker), *await coding(maker)]
    verifiable = instructed(questions, maker.settings, maker.seed)
    lasting = instructed(tasks, maker.settings, maker.seed, lasting=True)
    changed = await revised(maker, questions[:4])
    second = await two_turn(maker, questions[:4])
    prompts = mix([questions, tasks, closed, problems, verifiable, lasting, changed, second], 60, 1)
    return [*prompts, *await dialogues(maker, prompts, verify=False)]


def test_flows_are_deterministic_under_random_delays(late, small):
    runs = [asyncio.run(everything(Maker(late(seed), small, seed=5))) for seed in range(3)]
    assert runs[0] == runs[1] == runs[2]
    assert len(runs[0]) == 120
    other = asyncio.run(everything(Maker(late(0), small, seed=6)))
    assert other != runs[0]


def test_counts_and_lineage_of_prompts(maker):
    async def run():
        return await open_qa(maker, await topics(maker, given=["Sailing", "sailing "]))

    prompts = asyncio.run(run())
    assert maker.counts["open_qa"] == {"in": 7, "ok": 7, "out": 14, "failed": 0}
    assert maker.counts["open_qa revised"]["out"] == len(prompts) == 14
    lineage = prompts[0].lineage
    assert lineage.model == "fake" and lineage.seed == 5 and lineage.source == "open_qa"
    assert (
        lineage.template.startswith("revise_open_qa@") and '"temperature":0.7' in lineage.sampling
    )
    assert len({prompt.id for prompt in prompts}) == 14
    assert "Sailing" in prompts[-1].lineage.parents


def test_a_list_is_asked_again_with_another_seed(small):
    seeds = []

    def stubborn(prompt, sampling):
        seeds.append(sampling.seed)
        return "no" if len(seeds) == 1 else "1. a\n2. b"

    maker = Maker(Scripted(stubborn), small.model_copy(update={"subtopics": 0}), seed=1)
    assert asyncio.run(topics(maker)) == ["a", "b"]
    assert len(set(seeds)) == 2


def test_a_request_has_its_own_seed_by_run_and_by_what_is_asked(small):
    makers = [Maker(Scripted(lambda *_: ""), small, seed=seed) for seed in (1, 2)]
    seeds = {maker.sampling(9, *parts).seed for maker in makers for parts in (("a", 0), ("a", 1))}
    assert len(seeds) == 4
    assert makers[0].sampling(9, "a", 0) == makers[0].sampling(9, "a", 0)


def test_without_topics_nothing_can_follow(small):
    with pytest.raises(FlywrightError, match="macro_topics: scripted gave no list"):
        asyncio.run(topics(Maker(Scripted(lambda *_: "I will not."), small, seed=1)))


def test_closed_qa_holds_the_whole_document(maker):
    prompts = asyncio.run(closed_qa(maker, DOCUMENTS))
    assert len(prompts) == 8
    for number, prompt in enumerate(prompts):
        assert DOCUMENTS[number // 2].text in prompt.conversation.last


def test_dialogues_alternate_without_thanks_and_greedy(small, prompts):
    samplings = []

    def greedy(prompt, sampling):
        samplings.append(sampling)
        if prompt.last.startswith("You play the user"):
            assert "User: question number" in prompt.last and "Assistant: reply" in prompt.last
            return "Thank you! and then?"
        return f"reply {len(prompt.messages)}"

    settings = small.model_copy(update={"user_turns": 3})
    made = asyncio.run(dialogues(Maker(Scripted(greedy, model="m"), settings, seed=1), prompts))
    assert [d.lineage.parents for d in made] == [(prompt.id,) for prompt in prompts]
    for dialogue in made:
        texts = [message.content for message in dialogue.conversation.messages]
        assert texts[1:] == ["reply 1", "And then?", "reply 3", "And then?", "reply 5"]
        assert dialogue.lineage.answer_by == "model" and dialogue.lineage.model == "m"
    assert all(sampling.greedy for sampling in samplings)


def test_answers_that_break_their_instruction_are_dropped(small, prompts):
    settings = small.model_copy(
        update={"instruction_kinds": ("punctuation:no_comma",), "instructions_each": 1}
    )
    lasting = instructed(prompts, settings, 3, lasting=True)

    def chatty(prompt, _sampling):
        text = prompt.messages[0].content
        if text.startswith("You play"):
            return "and more?"
        late_comma = "number 1 " in text and len(prompt.messages) > 1
        return "one, two" if "number 0 " in text or late_comma else "one and two"

    maker = Maker(Scripted(chatty), settings, seed=1)
    made = asyncio.run(dialogues(maker, lasting))
    assert maker.counts["dialogues"]["dropped: instruction not followed"] == 1
    assert len(made) == 11 and len(made[0].conversation.messages) == 2
    assert made[0].lineage.filters == ("ended early: instruction not followed",)
    assert all(len(dialogue.conversation.messages) == 4 for dialogue in made[1:])
    assert len(asyncio.run(dialogues(maker, lasting, verify=False))) == 12


def test_two_turn_prompts_are_user_assistant_user(maker, prompts):
    for prompt in asyncio.run(two_turn(maker, prompts)):
        assert [m.role for m in prompt.conversation.messages] == ["user", "assistant", "user"]
        assert prompt.conversation.last.startswith("Why is item")


def test_mix_is_balanced_and_split_is_disjoint_by_text(prompts, make_prompt):
    mixed = mix([prompts[:2], prompts[2:8], prompts[8:]], 8, seed=1)
    groups = [[p for p in mixed if p in part] for part in (prompts[:2], prompts[2:8], prompts[8:])]
    assert [len(group) for group in groups] == [2, 3, 3]
    copies = [make_prompt(f"{prompt.conversation.last}?".upper()) for prompt in prompts]
    for_sft, for_preferences = split([*prompts, *copies], 0.5, seed=2)
    assert len(for_sft) + len(for_preferences) == 24
    texts = [
        {p.conversation.last.casefold().rstrip("?") for p in part}
        for part in (for_sft, for_preferences)
    ]
    assert all(texts) and not texts[0] & texts[1]
