"""Verifiable instructions: drawn by seed, without conflict, said in the prompt, known to judge."""

import asyncio
import itertools
import random

import pytest
from obedient import broken, obedient

from flywright.errors import UserError
from flywright.judge.instructions import CHECKERS, follows
from flywright.records import Check
from flywright.synth.arguments import ARGUMENTS, conflict
from flywright.synth.instructions import drawn, instructed, revised, said
from flywright.synth.wording import keyed

ALL = tuple(ARGUMENTS)


def test_the_25_ids_are_the_judges_and_each_has_a_wording():
    assert set(ARGUMENTS) == set(CHECKERS) == set(keyed("instruction_wordings", " | "))
    assert len(ARGUMENTS) == 25


@pytest.mark.parametrize("size", ["small", "full"])
@pytest.mark.parametrize("kind", ALL)
def test_arguments_fit_the_checker_and_are_said(kind, size, small):
    settings = small.model_copy(update={"instruction_kinds": (kind,), "instruction_size": size})
    for seed in range(20):
        (check,) = drawn("Tell me about the deep blue river", settings, random.Random(seed))
        follows(check.kind, check.args, "An answer.")  # raises if the arguments do not fit
        words = said(check)
        for name, value in check.args.items():
            for part in value if isinstance(value, list) else [value]:
                assert name == "prompt_to_repeat" or str(part) in words


def test_no_two_conflict_and_the_number_is_bounded(small):
    settings = small.model_copy(update={"instruction_kinds": ALL, "instructions_each": 3})
    sizes = set()
    for seed in range(300):
        checks = drawn("Tell me about the river", settings, random.Random(seed))
        kinds = [check.kind for check in checks]
        assert not any(conflict(a, b) for a, b in itertools.combinations(kinds, 2))
        if "startend:end_checker" in kinds:
            assert kinds[-1] == "startend:end_checker"
        sizes.add(len(kinds))
    assert sizes == {1, 2, 3}


TEXTS = ("Tell me about the deep blue river and why NASA went there because of it", "Hi")
PAIRS = [pair for pair in itertools.combinations(ALL, 2) if not conflict(*pair)]


@pytest.mark.parametrize("size", ["small", "full"])
def test_whatever_is_drawn_together_can_be_followed_together(small, size):
    settings = small.model_copy(
        update={"instruction_kinds": ALL, "instruction_size": size, "instructions_each": 3}
    )
    seen = set()
    for seed in range(2000):
        checks = drawn(TEXTS[seed % 2], settings, random.Random(seed))
        answer = obedient(checks)
        failed = [check for check in checks if not follows(check.kind, check.args, answer)]
        assert not failed, (seed, checks, answer)
        seen |= set(itertools.combinations(sorted(check.kind for check in checks), 2))
    assert len(seen) > len(PAIRS) * 0.9  # nearly all that may stand together did


@pytest.mark.parametrize("size", ["small", "full"])
@pytest.mark.parametrize("kind", ALL)
def test_each_is_satisfiable_and_its_checker_tells(kind, size, small):
    settings = small.model_copy(update={"instruction_kinds": (kind,), "instruction_size": size})
    for seed in range(30):
        (check,) = drawn(TEXTS[0], settings, random.Random(seed))
        answer = obedient([check])
        assert follows(kind, check.args, answer), (check, answer)
        trivial = check.args.get("num_sentences") == 1  # at least one: any answer has it
        assert trivial or not follows(kind, check.args, broken(check, answer)), (check, answer)
        assert [check] == drawn(TEXTS[0], settings, random.Random(seed))


def test_the_first_question_is_not_to_be_repeated_in_later_answers(small, prompts, maker):
    kinds = ("combination:repeat_prompt", "detectable_format:title")
    settings = small.model_copy(update={"instruction_kinds": kinds})
    lasting = instructed(prompts, settings, seed=4, lasting=True)
    maker.settings = settings
    for prompt in [*lasting, *asyncio.run(revised(maker, prompts))]:
        assert [check.kind for check in prompt.checks] == [kinds[1]]
    assert kinds[0] in {c.kind for p in instructed(prompts, settings, 4) for c in p.checks}


def test_conflicts_are_what_no_answer_can_satisfy():
    assert conflict("change_case:english_capital", "change_case:english_lowercase")
    assert conflict("detectable_format:json_format", "punctuation:no_comma")
    assert conflict("startend:quotation", "startend:quotation")
    assert not conflict("punctuation:no_comma", "change_case:english_lowercase")
    pairs = itertools.product(ALL, ALL)
    assert all(conflict(a, b) == conflict(b, a) for a, b in pairs)


def test_small_lengths_leave_room(small):
    settings = small.model_copy(update={"instruction_kinds": ("length_constraints:number_words",)})
    for seed in range(50):
        (check,) = drawn("q", settings, random.Random(seed))
        low = check.args["relation"] == "less than"
        assert 4 + low <= check.args["num_words"] <= 12 + low


def test_prompts_keep_their_text_and_are_the_same_each_time(small, prompts, make_prompt):
    with_truth = make_prompt("2 + 2", checks=(Check(kind="number", args={"answer": 4}),))
    made = instructed([*prompts, with_truth], small, seed=4)
    assert made == instructed([*prompts, with_truth], small, seed=4)
    assert made != instructed([*prompts, with_truth], small, seed=5)
    assert len(made) == len(prompts)
    for prompt, source in zip(made, prompts, strict=True):
        assert source.conversation.last in prompt.conversation.last
        assert all(said(check) in prompt.conversation.last for check in prompt.checks)
        assert prompt.lineage.parents == (source.id,) and prompt.checks


def test_lasting_instructions_stand_between_their_marks(small, prompts):
    for prompt in instructed(prompts, small, seed=4, lasting=True):
        inside = prompt.conversation.last.split("[BEGIN OF INSTRUCTION] ")[1]
        inside = inside.split(" [END OF INSTRUCTION]")[0]
        assert inside == " ".join(said(check) for check in prompt.checks)


def test_a_second_turn_asks_to_revise_the_answer(maker, prompts):
    for prompt, source in zip(asyncio.run(revised(maker, prompts)), prompts, strict=True):
        first, answer, request = prompt.conversation.messages
        assert first == source.conversation.messages[0] and answer.content.startswith("an answer")
        assert all(said(check) in request.content for check in prompt.checks)


def test_an_unknown_kind_is_named(small):
    settings = small.model_copy(update={"instruction_kinds": ("punctuation:no_coma",)})
    with pytest.raises(UserError, match="punctuation:no_coma"):
        drawn("q", settings, random.Random(0))
