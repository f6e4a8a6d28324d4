"""Bring your own base: a folder that transformers wrote, an endpoint, and files; tiny."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from transformers import NemotronConfig, NemotronForCausalLM

from flywright.ask import Limited, Sampling, gather
from flywright.errors import FlywrightError, UserError
from flywright.files import write_json
from flywright.recipe.answerers import generator
from flywright.recipe.brought import Brought, prompts
from flywright.recipe.run import read_recipe, run, stage_rows, step_names
from flywright.recipe.settings import AlignSettings, BroughtSettings, GeneratorSettings
from flywright.records import Check, Conversation, Lineage, Prompt
from flywright.serve.fake import create_fake_app
from flywright.tokenizer import Tokenizer, train_tokenizer

RECIPE = Path(__file__).parents[2] / "recipes" / "align.toml"
OTHER_FORMAT = {"chat_format_hash": "0"}
SCORES = {"correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 1}


def write_lines(path: Path, rows: list) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def prompt(text: str, task: str, *checks: Check) -> dict:
    said = Conversation.of(text)
    one = Prompt(id=text, conversation=said, task=task, checks=checks, lineage=Lineage(source="t"))
    return one.model_dump(mode="json", exclude_defaults=True)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    text = "Say which of 12 words is the longest, and write a line of Python that adds numbers: "
    return train_tokenizer([text + "".join(map(chr, range(33, 127)))] * 50, 400)


@pytest.fixture(scope="module")
def base(tokenizer, tmp_path_factory) -> Path:
    """What a person has: save_pretrained and the tokenizer's files."""
    folder = tmp_path_factory.mktemp("base")
    config = NemotronConfig(
        vocab_size=416,  # padded beyond the tokenizer's pieces, as real ones are
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=1024,
    )
    NemotronForCausalLM(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    rated = [
        {"prompt": f"Say {n // 2}", "response": "a b"[: n % 2 * 2 + 1], "helpfulness": n % 2 * 3}
        for n in range(80)
    ]
    write_lines(folder / "ratings.jsonl", [{**row, **SCORES} for row in rated])
    write_lines(folder / "prompts.jsonl", [{"prompt": f"Write line {n}"} for n in range(6)])
    number = Check(kind="number", args={"answer": "4"})
    comma = Check(kind="punctuation:no_comma")
    code = Check(kind="code", args={"entry_point": "f", "tests": ["assert f() == 1"]})
    held = [prompt("What is 2 + 2?", "math", number), prompt("Say it.", "say", comma)]
    held.append(prompt("Write f() that returns 1.", "code", code))
    write_lines(folder / "heldout.jsonl", held)
    write_lines(folder / "code.jsonl", [{"prompt": f"Add {n} numbers in Python"} for n in range(4)])
    return folder


@contextmanager
def served(*faults: str) -> Iterator[str]:
    """The address of `flywright fake-llm` in this process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(create_fake_app(faults), port=port, log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def endpoint():
    with served() as address:
        yield address


def test_an_endpoint_that_refuses_now_and_then_answers_every_record() -> None:
    questions = [Conversation.of(f"Say line {n}.") for n in range(12)]
    with served("rate429=0.2", "badjson=0.2") as address:
        writer = generator(GeneratorSettings(model=address))
        assert isinstance(writer, Limited) and writer.model == "fake-llm"
        for seed in (1, 2):  # each step of a road has its own event loop
            sampling = Sampling(temperature=1.0, seed=seed)
            asked = gather(lambda one, drawn=sampling: writer.complete(one, drawn), questions)
            assert all(reply.text for reply in asyncio.run(asked))
        assert writer.calls > 2 * len(questions), "some were refused, and asked again"


def recipe(base: Path, own: Path, endpoint: str, *more: str) -> AlignSettings:
    tiny = [f"base.folder={base}", f"generator.model={endpoint}"]
    names = ("ratings", "prompts", "heldout", "code")
    tiny += [f"files.{name}={own / name}.jsonl" for name in names]
    small = {"sft": 16, "preference": 16, "truth": 2, "documents": 1}
    tiny += [f"prompts.{name}={count}" for name, count in small.items()]
    small = {"macro_topics": 2, "subtopics": 1, "questions": 1, "revisions": 1, "user_turns": 2}
    tiny += [f"synth.{name}={count}" for name, count in {**small, "samples": 2}.items()]
    tiny += ["synth.answer_tokens=24", "genetic.colonies=1", "genetic.generations=1"]
    tiny += ["genetic.target=2", "genetic.rounds=2", "evaluate.max_tokens=8", "rpo.iterations=1"]
    for stage in ("reward", "code_sft", "sft", "dpo", "rpo"):
        tiny += [f"{stage}.train.samples=4", f"{stage}.train.batch_size=2"]
        tiny += [f'{stage}.train.precision="fp32"', f"{stage}.train.max_over_length_share=0.9"]
    found = read_recipe(RECIPE, [*tiny, *more], None)
    assert isinstance(found, AlignSettings)
    return found


def test_the_road_of_a_brought_base(base, own, endpoint, tmp_path):
    chosen = recipe(base, own, endpoint)
    names = step_names(chosen)
    assert "pretrain" not in names and names[:2] == ["documents", "base"]
    run(chosen, tmp_path / "out")
    stages = [row["stage"] for row in stage_rows(tmp_path / "out")]
    assert stages == ["generator", "base", "code_sft", "sft", "dpo", "rpo1"]
    NemotronForCausalLM.from_pretrained(tmp_path / "out" / "policy")


def test_later_turns_take_the_later_base(base, own, endpoint):
    same = step_names(recipe(base, own, endpoint, "turns=2"))
    other = step_names(recipe(base, own, endpoint, "turns=2", f"base.later={base}"))
    assert "2-base" not in same and "2-base" in other and "2-rpo1" in same


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda f: [path.unlink() for path in f.glob("tokenizer.*")],
            "tokenizer.model: no such file",
        ),
        (lambda f: (f / "config.json").unlink(), "config.json: cannot read: No such file"),
        (lambda f: write_json(f / "tokenizer_config.json", OTHER_FORMAT), "chat format 0 differs"),
    ],
)
def test_a_folder_that_cannot_be_adopted_is_one_line(base, own, endpoint, tmp_path, harm, message):
    folder = tmp_path / "base"
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    harm(folder)
    with pytest.raises(FlywrightError, match=message):
        run(recipe(folder, own, endpoint), tmp_path / "out", until="base")


def test_what_was_brought_is_read_or_refused_by_line(own, tmp_path):
    paths = {name: str(own / f"{name}.jsonl") for name in ("ratings", "prompts", "heldout", "code")}
    brought = Brought(BroughtSettings(**paths))
    held, trained = brought.rated_heldout("near", 1000), brought.ratings(1000)
    assert len(held) + len(trained) == 80
    assert not {r.conversation.turns[0] for r in held} & {r.conversation.turns[0] for r in trained}
    assert len(brought.heldout("near", 9)) == 3 and not brought.heldout("far", 9)
    with pytest.raises(UserError, match=r"\[files\]: .*absent: no such file"):
        Brought(BroughtSettings(**{**paths, "code": str(tmp_path / "absent")}))
    write_lines(tmp_path / "p.jsonl", [{"prompt": "x"}, {"promt": "y"}])
    with pytest.raises(UserError, match=r"p\.jsonl:2: not of the form prompts"):
        list(prompts(str(tmp_path / "p.jsonl")))
