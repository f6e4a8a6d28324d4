"""The corpus states every fact, keeps held-out items out, and has the three kinds of text."""

from collections import Counter

import pytest

from flywright.records import Document
from flywright.synth.decontaminate import Benchmarks, decontaminate
from flywright.world import World
from flywright.world.corpus import SOURCES
from flywright.world.facts import RELATIONS, state
from flywright.world.families import normal_text
from flywright.world.tasks_code import solution
from flywright.world.tasks_facts import LANGUAGES, sentences, translate
from flywright.world.words import WORDS


@pytest.fixture(scope="module")
def world() -> World:
    return World(3)


@pytest.fixture(scope="module")
def documents(world: World) -> list[Document]:
    return list(world.documents())


def clean_text(documents: list[Document]) -> str:
    return "\n".join(d.text for d in documents if d.source != "web")


def test_documents_are_the_same_each_time(world: World, documents: list[Document]) -> None:
    again = World(3).documents()
    assert [next(again) for _ in range(300)] == documents[:300]


def test_size_and_kinds_of_text(documents: list[Document]) -> None:
    sizes = Counter()
    for document in documents:
        kind = document.language if document.language in ("en", "code") else "other"
        sizes[kind] += len(document.text)
    assert sum(sizes.values()) == pytest.approx(sum(s.characters for s in SOURCES), rel=0.02)
    assert min(sizes["other"], sizes["code"]) > 0.1 * sum(sizes.values())
    assert {d.language for d in documents} == {"en", "code", *LANGUAGES.values()}
    assert {d.source for d in documents} == {s.name for s in SOURCES}


def test_every_fact_is_stated_in_several_ways(world: World, documents: list[Document]) -> None:
    text = "\n".join(d.text for d in documents if d.source == "handbook")
    for fact in world.facts.all:
        ways = [state(fact, wording) for wording in RELATIONS[fact.relation].statements]
        assert sum(way in text for way in ways) >= 3, fact


def test_every_spelling_is_stated(documents: list[Document]) -> None:
    text = clean_text(documents)
    assert all(" ".join(word) in text for word in WORDS)


def test_no_heldout_prompt_stands_in_the_corpus(world: World, documents: list[Document]) -> None:
    text = f" {normal_text(clean_text(documents))} "
    for prompt in world.heldout("near", 300) + world.heldout("far", 100):
        request = normal_text(prompt.conversation.last)
        if prompt.task not in ("follow_up", "add_digits"):
            assert f" {request} " not in text, prompt.conversation.last


def test_no_heldout_solution_stands_in_the_corpus(world: World, documents: list[Document]) -> None:
    text = "\n".join(d.text for d in documents if d.language == "code")
    code = [p for p in world.heldout("near", 300) if p.task.startswith("code")]
    assert code
    for prompt in code:
        reading = world.reader.read(prompt.conversation)
        assert reading is not None and solution(reading.fields) + "\n" not in text


def test_code_of_the_corpus_runs(documents: list[Document]) -> None:
    for document in [d for d in documents if d.language == "code"][:200]:
        exec(compile(document.text, "corpus", "exec"), {"print": lambda *_: None})


def test_questions_are_training_items_only(world: World) -> None:
    questions = world.questions()
    assert len(questions) > 1000 and {one.source for one in questions} == {"questions"}
    turns = [one.text.removeprefix("User\n").split("\nAssistant\n") for one in questions]
    asked = {normal_text(question) for question, *_ in turns}
    heldout = world.heldout("near", 400) + world.heldout("far", 200)
    assert not asked & {normal_text(p.conversation.last) for p in heldout if p.task != "follow_up"}


def test_decontamination_leaves_most_training_prompts(world: World) -> None:
    prompts = world.prompts(600)
    benchmarks = Benchmarks(world.benchmark_texts(), methods=("words",))
    kept, _ = decontaminate(prompts, benchmarks)
    assert len(kept) > 0.9 * len(prompts)
    heldout = world.heldout("near", 100)
    assert not decontaminate(heldout, benchmarks)[0]


def test_the_noisy_source_has_copies(documents: list[Document]) -> None:
    noisy = [d.text for d in documents if d.source == "web"]
    good = [d.text for d in documents if d.source == "handbook"]
    assert len(set(noisy)) < 0.9 * len(noisy) and len(set(good)) > 0.95 * len(good)


def test_languages_translate_word_for_word() -> None:
    sentence = sentences()["The woman buys the apple in the garden."]
    assert translate(sentence, "es") == "La mujer compra la manzana en el jardín."
    assert translate(sentence, "de") == "Die Frau kauft den Apfel im Garten."
    assert translate(sentence, "fr") == "La femme achète la pomme dans le jardin."
    assert translate(sentence, "ru") == "Женщина покупает яблоко в саду."
