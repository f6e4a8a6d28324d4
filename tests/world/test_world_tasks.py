"""The world keeps its word: same seed same world, held-out apart, the truth passes its checks."""

from collections import Counter
from random import Random

import pytest

from flywright.evals.verifiable import metric_of
from flywright.judge.instructions import follows
from flywright.judge.truth import is_exact, is_number
from flywright.records import Prompt
from flywright.world import World
from flywright.world.facts import RELATIONS, Facts
from flywright.world.families import normal_text
from flywright.world.tasks_code import OPERATIONS, plan_of


@pytest.fixture(scope="module")
def world() -> World:
    return World(3)


@pytest.fixture(scope="module")
def training(world: World) -> list[Prompt]:
    return world.prompts(1500)


@pytest.fixture(scope="module")
def heldout(world: World) -> list[Prompt]:
    return world.heldout("near", 400) + world.heldout("far", 200)


def texts(prompts: list[Prompt]) -> set[str]:
    return {normal_text(" ".join(m.content for m in p.conversation.messages)) for p in prompts}


def truth(world: World, prompt: Prompt) -> str:
    reading = world.reader.read(prompt.conversation)
    assert reading is not None, prompt
    return reading.answer()


def passes(prompt: Prompt, answer: str) -> bool:
    """All checks but code hold; code is run, since here it is our own."""
    for check in prompt.checks:
        if check.kind == "exact":
            held = is_exact(answer, check.args["answer"])
        elif check.kind == "number":
            held = is_number(answer, check.args["answer"])
        elif check.kind == "code":
            held = runs(answer, check.args["tests"] + check.args["hidden_tests"])
        else:
            held = follows(check.kind, check.args, answer)
        if not held:
            return False
    return True


def runs(code: str, tests: list[str]) -> bool:
    try:
        exec("\n".join([code, *tests]), {})
    except Exception:
        return False
    return True


def test_same_seed_same_world_and_another_seed_another(world: World) -> None:
    assert World(3).prompts(50) == world.prompts(50)
    assert World(3).ratings(20) == world.ratings(20)
    assert World(3).fingerprint == world.fingerprint != World(4).fingerprint
    assert World(4).prompts(50) != world.prompts(50)
    assert Facts(3).all == world.facts.all != Facts(4).all


def test_a_longer_heldout_list_begins_with_the_shorter(world: World) -> None:
    assert world.heldout("near", 100)[:40] == world.heldout("near", 40)


def test_heldout_shares_no_item_and_no_text_with_training(
    world: World, training: list[Prompt], heldout: list[Prompt]
) -> None:
    seeds = world.code_seeds()
    assert not {p.task_id for p in heldout} & {p.task_id for p in training + seeds}
    assert not texts(heldout) & texts(training + seeds)


def test_heldout_bases_are_not_trained_with_an_instruction(training: list[Prompt]) -> None:
    bases = [p for p in World(3).heldout("near", 400) if p.task in ("writing", "tell_about")]
    heldout = {normal_text(p.conversation.last) for p in bases}
    assert heldout
    assert not heldout & {normal_text(p.conversation.last.split(". ")[0]) for p in training}


def test_prompts_are_different_and_labelled(training: list[Prompt], heldout: list[Prompt]) -> None:
    assert len(training) == 1500 and len(texts(training)) == 1500
    assert {p.split for p in training} == {""} and {p.split for p in heldout} == {"near", "far"}
    assert len({p.id for p in training + heldout}) == len(training) + len(heldout)


def test_heldout_measures_all_three_metrics(heldout: list[Prompt]) -> None:
    for split in ("near", "far"):
        counts = Counter(metric_of(p) for p in heldout if p.split == split)
        assert min(counts[name] for name in ("accuracy", "instruction_following", "code")) >= 10


def test_the_truth_passes_its_checks(
    world: World, training: list[Prompt], heldout: list[Prompt]
) -> None:
    failed = [p.conversation.last for p in training + heldout if not passes(p, truth(world, p))]
    assert not failed


def test_another_answer_fails_the_checks(world: World, training: list[Prompt]) -> None:
    accuracy = [p for p in training if metric_of(p) == "accuracy"]
    assert not any(passes(p, "banana 1000") for p in accuracy)
    code = [p for p in training if metric_of(p) == "code"]
    name = [p.checks[0].args["entry_point"] for p in code]
    assert not any(
        passes(p, f"def {n}(x):\n    return None") for p, n in zip(code, name, strict=True)
    )


def test_hidden_tests_differ_from_the_visible_ones(training: list[Prompt]) -> None:
    for prompt in training:
        if metric_of(prompt) == "code":
            args = prompt.checks[0].args
            assert args["tests"] and len(set(args["hidden_tests"]) - set(args["tests"])) >= 3


def test_hidden_tests_see_a_comparison_that_is_off_by_one(training: list[Prompt]) -> None:
    world = World(3)
    found = [p for p in training if metric_of(p) == "code" and "greater" in p.conversation.last]
    assert found
    for prompt in found:
        off = truth(world, prompt).replace(" > ", " >= ")
        assert not runs(off, prompt.checks[0].args["hidden_tests"]), off


def test_a_prompt_is_read_back_as_what_it_was_drawn_from(world: World) -> None:
    for family in world.families:
        if family.name.startswith("instruction"):
            continue
        rng = Random(9)
        for _ in range(20):
            fields = family.draw(rng)
            reading = world.reader.read(family.ask(fields, rng))
            assert reading is not None and reading.family is not None
            assert reading.answer() == family.solve(fields), (family.name, fields)


def test_a_task_is_read_inside_other_words(world: World) -> None:
    prompt = next(p for p in world.prompts(100) if p.task == "reverse_words")
    text = f"Please help me. {prompt.conversation.last}. Give only the answer."
    reading = world.reader.read(prompt.conversation.of(text))
    assert reading is not None and reading.answer() == prompt.checks[0].args["answer"]


def test_prompts_and_answers_are_short(world: World, training: list[Prompt]) -> None:
    for prompt in training:
        words = sum(len(m.content.split()) for m in prompt.conversation.messages)
        assert words <= 45 and len(truth(world, prompt)) <= 160, prompt.conversation


def test_every_operation_is_understood_from_its_words() -> None:
    for argument, operations in OPERATIONS.items():
        for operation in operations:
            plan = plan_of({"action": operation.action.format(arg=argument, n=3)})
            assert plan.steps[0][0] is operation


def test_some_facts_are_held_out_and_most_are_not(world: World) -> None:
    families = [family for family in world.families if family.name == "open_qa"]
    heldout = sum(
        family.split_of({"subject": fact.subject, "relation": fact.relation}) != ""
        for family in families
        for fact in world.facts.all
        if fact.relation == family.fixed["relation"]
    )
    assert 60 <= len(world.facts.all) <= 150
    assert 0.05 < heldout / len(world.facts.all) < 0.3
    assert len(RELATIONS) == len(families)
