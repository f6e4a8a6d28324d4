"""The serving benchmark: what it asks, that models never end an answer, and how it counts."""

import os
import sys
from types import SimpleNamespace

import pytest
import serve_models
import torch
from serve_worker import Worker

import serve
from flywright.model import load_decoder
from flywright.tokenizer import Tokenizer, chat
from serve import Contest, Side

CORES = sorted(os.sched_getaffinity(0))[:1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(serve_models.SHAPES, "tiny", (64, 2, 1, 1, 128, 1024))
        work = tmp_path_factory.mktemp("work")
        policy, reward = serve_models.make_folders("tiny", work)
        assert serve_models.make_folders("tiny", work) == (policy, reward)
        yield policy


def test_prompts_are_new_and_of_their_lengths(folder):
    tokenizer = Tokenizer.load(folder)
    prompts = serve_models.Prompts(tokenizer)
    commands = [prompts.command(((20, 5), (32, 7))) for _ in range(3)]
    texts = [text for command in commands for text in command["texts"]]
    assert len({*texts}) == 6 and commands[0]["counts"] == [5, 7]
    for command in commands:
        assert [len(ids) for ids in command["prompts"]] == [20, 32]
        assert [tokenizer.raw_ids(text) for text in command["texts"]] == command["prompts"]


def test_no_answer_can_end_before_it_is_told(folder):
    model, tokenizer = load_decoder(folder, torch.float32), Tokenizer.load(folder)
    ids_BT = torch.tensor(serve_models.Prompts(tokenizer).command(((200, 1),) * 4)["prompts"])
    logits_BTV = model(ids_BT)
    assert (logits_BTV[..., list(chat.end_ids(tokenizer))] == 0).all()
    assert (logits_BTV.amax(-1) > 0).all()


def side(name: str, kind: str) -> Side:
    return Side(SimpleNamespace(name=name, kind=kind))  # type: ignore[arg-type]


def test_ratios_are_above_one_where_ours_is_better():
    contest = Contest("batch 8", ((128, 128),) * 8, [side("us", "flywright"), side("v", "vllm")])
    seconds = {"us": (1.0, 9.0, 2.0), "v": (4.0, 3.0, 5.0)}
    for name, took in seconds.items():
        contest.found[name] = [{"seconds": s, "first": s / 8, "peak_mib": 100 * s} for s in took]
    speed, first, memory = contest.rows()
    assert (speed["ours"], speed["peer"], speed["ratio"], speed["aim"]) == (512, 256, 2.0, 1.2)
    assert speed["all"]["ours"] == [1024.0, 113.8, 512.0]
    assert (first["ours"], first["peer"], first["ratio"]) == (250, 500, 2.0)
    assert (memory["ours"], memory["ratio"], memory["unit"]) == (200, 2.0, "MiB")


def test_a_peer_that_fails_is_told_and_left_out():
    class Odd:
        name, kind = "odd", "vllm"

        def ask(self, command):
            answers = [[7] * count for count in command["counts"]]
            short = self.name == "odd" and command["counts"][0] > 4
            return {"answers": answers[short:], "seconds": 1.0, "peak_mib": 1.0}

    us, odd = Odd(), Odd()
    us.name = "us"
    contest = Contest("batch 2", ((8, 16),) * 2, [Side(us), Side(odd)])  # type: ignore[arg-type]
    prompts = SimpleNamespace(
        command=lambda lengths: {"prompts": [], "counts": [count for _, count in lengths]}
    )
    contest.warm(prompts)  # type: ignore[arg-type]
    assert len(contest.sides) == 2
    for _ in range(2):
        contest.turn(prompts)  # type: ignore[arg-type]
    assert [side.name for side in contest.sides] == ["us"] and len(contest.found["us"]) == 2
    assert len(contest.notes) == 1 and "odd fails: answers of [16] tokens" in contest.notes[0]
    us.name = "odd"
    with pytest.raises(SystemExit, match="odd fails"):
        contest.turn(prompts)  # type: ignore[arg-type]


def test_the_roofline_reads_all_but_the_input_embedding():
    spec = serve_models.spec_of("30m")
    read = sum(rows * columns for rows, columns in serve_models.read_shapes(spec))
    norms = (2 * spec.layers + 1) * spec.norm_parameters
    assert read == spec.parameters - norms - spec.vocab_size * spec.hidden_size


def test_a_worker_obeys_and_tells_what_fails(folder, tmp_path):
    job = {"folder": str(folder), "threads": 1, "cores": CORES, "batch": 2}
    worker = Worker("flywright", sys.executable, job, {}, tmp_path / "log")
    try:
        asked = serve_models.Prompts(Tokenizer.load(folder)).command(((16, 3), (24, 5)))
        said = worker.ask(asked)
        assert [len(answer) for answer in said["answers"]] == [3, 5]
        assert said["seconds"] > 0 and said["peak_mib"] > 50
        with pytest.raises(RuntimeError, match="no attribute 'dance'"):
            worker.ask({"how": "dance"})
        assert worker.ask(asked)["answers"] == said["answers"]
    finally:
        worker.end()


def test_a_peer_that_is_not_there_is_told(tmp_path):
    args = SimpleNamespace(peers=["transformers", "vllm", "llama"], llama_bin=tmp_path)
    args.vllm_python = None
    assert len(serve.leave_out(args)) == 2 and args.peers == ["transformers"]
    with pytest.raises(RuntimeError, match=r"config\.json"):
        job = {"folder": str(tmp_path), "threads": 1, "cores": CORES, "batch": 2}
        Worker("flywright", sys.executable, job, {}, tmp_path / "log")
