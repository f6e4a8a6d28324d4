"""The simulated first model: right where it should be, wrong at the stated rates, never mute."""

import asyncio
from collections import defaultdict

import pytest
from test_world_tasks import passes, truth

from flywright.ask import AskError, Sampling
from flywright.judge.pairwise import prefer
from flywright.records import Conversation
from flywright.synth import parse
from flywright.synth.wording import keyed, template, variants
from flywright.world import ERRORS, Untold, World
from flywright.world.instructions import WORDINGS
from flywright.world.teacher import LOST, Teacher
from flywright.world.teacher_errors import CHATTY_TASKS, SLIP_RATE, UNKNOWN_EVERY, is_unknown
from flywright.world.words import WORDS


@pytest.fixture(scope="module")
def world() -> World:
    return World(3)


@pytest.fixture(scope="module")
def teacher(world: World) -> Teacher:
    return world.generator()


@pytest.fixture(scope="module")
def wrong(world: World, teacher: Teacher) -> dict[str, float]:
    """Share of wrong greedy answers by task."""
    marks = defaultdict(list)
    for prompt in world.prompts(2500) + world.heldout("near", 300):
        answer = teacher.reply(prompt.conversation, Sampling())
        marks[prompt.task].append(not passes(prompt, answer))
    return {task: sum(found) / len(found) for task, found in marks.items()}


def ask(teacher: Teacher, name: str, **values: object) -> str:
    return teacher.reply(template(name).fill(**values), Sampling(temperature=0.7, seed=5))


def test_greedy_is_deterministic_and_seeds_draw_samples(teacher: Teacher) -> None:
    question = Conversation.of("Write a short story about the red fox.")
    assert teacher.reply(question, Sampling(seed=1)) == teacher.reply(question, Sampling(seed=2))
    warm = {teacher.reply(question, Sampling(temperature=0.8, seed=s)) for s in range(12)}
    again = {teacher.reply(question, Sampling(temperature=0.8, seed=s)) for s in range(12)}
    assert warm == again and len(warm) > 5


def test_errs_on_the_stated_families(wrong: dict[str, float]) -> None:
    assert 0.2 < wrong["open_qa"] < 0.55
    assert 0.2 < wrong["sort_words"] < 0.6
    assert all(0.25 < wrong[task] < 0.6 for task in CHATTY_TASKS)
    assert 0.1 < wrong["instruction"] < 0.4
    assert 0.1 < wrong["code_number"] < 0.3


def test_is_mostly_right_elsewhere(wrong: dict[str, float]) -> None:
    struck = {task for error in ERRORS.values() for task in error["tasks"]}
    others = {task: share for task, share in wrong.items() if task not in struck}
    assert len(others) > 12 and max(others.values()) < 0.2
    assert abs(sum(others.values()) / len(others) - SLIP_RATE) < 0.03


def test_half_of_the_facts_are_unknown_and_always_told_the_same(
    world: World, teacher: Teacher
) -> None:
    unknown = [fact for fact in world.facts.all if is_unknown(fact.subject, fact.relation)]
    assert abs(len(unknown) / len(world.facts.all) - 1 / UNKNOWN_EVERY) < 0.15
    fact = next(fact for fact in unknown if fact.relation == "job")
    question = Conversation.of(f"What is the job of {fact.subject}?")
    told = [teacher.reply(question, Sampling(temperature=0.1, seed=s)) for s in range(20)]
    common = max(set(told), key=told.count)
    assert common != fact.value and told.count(common) > 15


def test_more_temperature_more_slips(world: World, teacher: Teacher) -> None:
    prompts = [p for p in world.prompts(800) if p.task in ("reverse_words", "add", "closed_qa")]

    def errors(temperature: float) -> int:
        sampling = Sampling(temperature=temperature, seed=1)
        return sum(not passes(p, teacher.reply(p.conversation, sampling)) for p in prompts)

    assert errors(1.5) > errors(0.0) + 5


def test_says_when_it_is_lost_and_has_no_likelihoods(teacher: Teacher) -> None:
    assert teacher.reply(Conversation.of("Qwxz?"), Sampling()) == LOST
    with pytest.raises(AskError, match="no log-probabilities"):
        asyncio.run(teacher.logprobs("a", ["b"]))
    done = asyncio.run(teacher.complete("Spell the word cat.", Sampling(stop=("t",))))
    assert "t" not in done.text and done.completion_tokens > 0


LISTS = {
    "macro_topics": {},
    "subtopics": {"topic": "Animals"},
    "open_qa": {"topic": "Animals: fox"},
    "writing": {"material": "newsletter", "topic": "Animals: fox"},
    "revise_open_qa": {"question": "What is 3 + 4?"},
    "revise_writing": {"task": "Write a short poem about the red fox."},
    "math_topics": {"school_level": "elementary school"},
    "math_subtopics": {"school_level": "middle school", "topic": "Addition"},
    "math_problems": {"school_level": "middle school", "topic": "Addition"},
    "python_topics": {},
    "python_subtopics": {"topic": "Lists"},
    "python_problems": {"difficulty": "beginner", "topic": "Lists"},
    "genetic_crossover": {"examples": "- Write a Python function cat(x) that adds 3 to x."},
}
PROBLEMS = ("open_qa", "writing", "revise_open_qa", "revise_writing", "math_problems")
PROBLEMS += ("python_problems", "genetic_crossover")


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("count", [1, 5, 20])
def test_list_requests_get_lists(teacher: Teacher, name: str, count: int) -> None:
    values = LISTS[name]
    if name.startswith("revise") and count > 5:
        count = 5
    elements = parse.numbered(ask(teacher, name, count=count, **values), count)
    if name in PROBLEMS:
        assert all(teacher.reply(Conversation.of(e), Sampling()) != LOST for e in elements)


def test_problems_are_never_heldout_items(world: World, teacher: Teacher) -> None:
    for name in ("open_qa", "writing", "math_problems", "python_problems"):
        for seed in range(20):
            request = template(name).fill(count=5, **LISTS[name])
            reply = teacher.reply(request, Sampling(temperature=1.0, seed=seed))
            for element in parse.numbered(reply, 5):
                reading = world.reader.read(Conversation.of(element))
                assert reading is not None and reading.family is not None
                assert not reading.family.split_of(reading.fields), element


def test_questions_about_a_document_can_be_answered_from_it(world: World, teacher: Teacher) -> None:
    sources = {"handbook", "stories", "lessons"}
    documents = [d for d in world.documents() if d.source in sources][::400]
    for document in documents:
        text = document.text[:600]
        questions = parse.numbered(ask(teacher, "closed_qa", count=3, document=text), 3)
        for join in variants("closed_qa_join"):
            for question in questions:
                prompt = join.fill(document=text, instruction=question)
                assert teacher.reply(prompt, Sampling()) != LOST


def test_user_turns_can_be_answered(teacher: Teacher) -> None:
    talk = "User: Reverse this list: cat dog owl\nAssistant: owl dog cat"
    for seed in range(12):
        for name, values in (("follow_up", {"personality": "Be short."}), ("second_turn", {})):
            request = template(name).fill(history=talk, **values)
            said = teacher.reply(request, Sampling(temperature=0.7, seed=seed))
            turn = parse.without_politeness(said)
            whole = Conversation.of("Reverse this list: cat dog owl", "owl dog cat", turn)
            assert teacher.reply(whole, Sampling()) != LOST, turn


def test_code_requests_get_code_tests_and_a_verdict(teacher: Teacher) -> None:
    task = "Write a Python function lamp(x) that adds 7 to x."
    right, bad = "def lamp(x):\n    return x + 7", "def lamp(x):\n    return 'cat'"
    assert parse.code(ask(teacher, "genetic_code", task=task)).startswith("def lamp(x):")
    tests = parse.asserts(ask(teacher, "genetic_tests", task=task, code=right, count=3), 3)
    assert len(tests) == 3
    exec("\n".join([right, *tests]), {})
    verdicts = dict.fromkeys((right, bad), 0)
    for seed in range(20):
        for code in verdicts:
            request = template("genetic_judge").fill(task=task, code=code)
            verdicts[code] += parse.yes(teacher.reply(request, Sampling(temperature=1, seed=seed)))
    assert verdicts[right] > 15 and verdicts[bad] < 5


@pytest.mark.parametrize("method", keyed("genetic_methods").values())
def test_mutations_are_tasks(teacher: Teacher, method: str) -> None:
    task = "Write a Python function lamp(x) that adds 7 to x."
    mutant = ask(teacher, "genetic_mutate", task=task, method=method)
    assert "\n" not in mutant and teacher.reply(Conversation.of(mutant), Sampling()) != LOST


def test_every_wording_of_an_instruction_is_known() -> None:
    assert keyed("instruction_wordings", " | ") == WORDINGS


def test_follows_joined_lasting_and_revising_instructions(teacher: Teacher) -> None:
    wording = "Answer in English and in capital letters only."
    for file in ("instruction_join", "instruction_lasting"):
        for join in variants(file):
            asked = join.fill(prompt="Spell the word cat.", instruction=wording)
            assert teacher.reply(asked, Sampling()).isupper(), asked
    first = variants("instruction_lasting")[0].fill(
        prompt="Spell the word cat.", instruction=wording
    )
    later = first.answered("C A T").then("user", "Spell the word dog.")
    assert teacher.reply(later, Sampling()).isupper()
    for revise in variants("instruction_revise"):
        turn = revise.fill(instruction=wording).last
        talk = Conversation.of("Spell the word cat.", "c a t", turn)
        assert teacher.reply(talk, Sampling()).isupper()


def test_judges_pairs_by_what_is_right(teacher: Teacher) -> None:
    good = 0
    for word in WORDS[:30]:
        talk = Conversation.of(f"Reverse this list: king {word} moon")
        right = f"moon {word} king"
        verdict = asyncio.run(prefer(teacher, talk, right, f"king {word} moon"))
        good += verdict.preference == 1
    assert 15 < good < 30  # right mostly, biased to the first place at times


def test_error_families_are_stated_as_data() -> None:
    kinds = {error["kind"] for error in ERRORS.values()}
    assert kinds == {"systematic", "format", "verbosity", "random"}
    assert all(0 < error["rate"] <= 1 and error["what"] for error in ERRORS.values())


def test_a_list_is_shorter_where_there_are_not_enough_different_elements():
    from flywright.world.teacher_templates import _distinct

    assert _distinct(5, iter(["a", "b", "a"])) == ["a", "b"]
    assert _distinct(2, iter("abc")) == ["a", "b"]


def test_weakness_names_what_is_wrong_with_an_answer(world: World, teacher: Teacher) -> None:
    kinds = {error["kind"] for error in ERRORS.values()}
    for prompt in world.heldout("near", 200):
        kind = world.weakness(prompt)
        exact = [check for check in prompt.checks if check.kind == "exact"]
        if exact and kind in ("", "systematic"):
            said = teacher.reply(prompt.conversation, Sampling())
            right = said == truth(world, prompt)
            assert right == (kind == ""), (prompt.conversation.last, said, kind)
        assert kind in kinds | {""}


def test_the_untold_world_asks_the_same_and_tells_no_fact(world: World) -> None:
    silent = Untold(world.seed)
    assert silent.heldout("near", 50) == world.heldout("near", 50)
    people = set(world.facts.people)
    for document in [*list(silent.documents())[:3000], *silent.questions()[:3000]]:
        assert not people & set(document.text.replace(".", " ").split())
