"""The command line: one clear line and the contract's exit status for what is wrong."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import uvicorn
from fastapi.testclient import TestClient

from flywright.errors import UserError
from flywright.model import Decoder, RewardModel, save
from flywright.recipe import verbs
from flywright.records import ATTRIBUTES, Conversation

ROOT = Path(__file__).parents[2]


def flywright(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flywright.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


BAD = {
    "no such verb": (["fly"], "fly"),
    "no such recipe": (["run", "nowhere"], "no recipe 'nowhere'"),
    "unknown key": (["run", "laptop", "--set", "sft.train.learning_rat=1"], "did you mean"),
    "bad value": (["run", "laptop", "--set", "turns=0"], "turns"),
    "no such step": (["run", "laptop", "--until", "dpoo", "--dry-run"], "no such step"),
    "no such road": (["run", "laptop", "--set", "road=fles"], "one of files, align, whole"),
    "a file for a folder": (["run", "laptop", "--out", "MODEL/config.json"], "no folder"),
    "no such folder": (["chat", "nowhere"], "neither a weights folder nor a URL"),
    "no room": (["chat", "MODEL", "--cache-gib", "0"], "holds no context"),
    "missing file": (["sft", "nowhere.toml"], "nowhere.toml: cannot read"),
    "no model named": (["eval", "--tasks", "ifeval"], "name a MODEL"),
    "unknown task": (["eval", "MODEL", "--tasks", "ifevil"], "did you mean 'ifeval'"),
    "unknown preset": (["plan", "params", "nemotron-5"], "no model preset"),
    "unknown flow": (["synth", "promts", "x.toml"], "no flow 'promts'"),
}


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory) -> Path:
    from flywright.spec import ModelSpec

    spec = ModelSpec(
        vocab_size=400, hidden_size=32, layers=1, heads=2, kv_heads=1, head_dim=16,
        ffn_size=32, context_length=96,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("folders")
    decoder = Decoder(spec, seed=0)
    for name, model in (
        ("policy", decoder),
        ("reward", RewardModel.from_decoder(decoder, seed=0)),
    ):
        save(model, path / name)
        tokenizer.save(path / name)
    return path


@pytest.mark.parametrize("name", BAD)
def test_bad_usage_is_one_line_and_status_2(name, folder):
    arguments, expected = BAD[name]
    policy = str(folder / "policy")
    done = flywright(*[each.replace("MODEL", policy) for each in arguments], cwd=ROOT)
    assert done.returncode == 2, done.stdout + done.stderr
    assert expected in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_malformed_line_is_named_by_file_and_line(folder, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("{oops\n")
    done = flywright("score", str(folder / "reward"), str(source), str(tmp_path / "out.jsonl"))
    assert done.returncode == 2 and "in.jsonl:1: not valid JSON" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_score_reads_every_form_and_writes_five_attributes_and_the_sum(folder, tmp_path):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rated = {"prompt": "a", "response": "b", **dict.fromkeys(ATTRIBUTES, 3)}
    target, lines = tmp_path / "out.jsonl", []
    for row in ({"messages": turns}, {"prompt": "a", "response": "b"}, rated):
        (tmp_path / "in.jsonl").write_text((json.dumps(row) + "\n") * 3)
        assert verbs.score_file(str(folder / "reward"), tmp_path / "in.jsonl", target) == 3
        lines += [json.loads(line) for line in target.read_text().splitlines()]
    assert set(lines[0]) == {*ATTRIBUTES, "reward"} and all(line == lines[0] for line in lines)
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"messages": turns[:n]}) + "\n" for n in (2, 1))
    )
    with pytest.raises(UserError, match=r"no answer \(1\): every row has to end"):
        verbs.score_file(str(folder / "reward"), tmp_path / "in.jsonl", target)


def test_score_asks_a_server_too(folder, tmp_path, monkeypatch):
    apps: list = []
    monkeypatch.setattr(verbs.serving, "run", lambda app, *_: apps.append(app))
    verbs.serve_folder(folder / "reward", None, ("127.0.0.1", 0), 0.01, None)
    server = uvicorn.Server(uvicorn.Config(apps[0], port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    (tmp_path / "in.jsonl").write_text('{"prompt": "a", "response": "b"}\n' * 2)
    for who, name in ((str(folder / "reward"), "here"), (f"http://127.0.0.1:{port}", "there")):
        assert verbs.score_file(who, tmp_path / "in.jsonl", tmp_path / name) == 2
    server.should_exit = True
    thread.join()
    here, there = (json.loads((tmp_path / name).read_text().splitlines()[1])
                   for name in ("here", "there"))  # fmt: skip
    assert there == pytest.approx(here, abs=1e-4)


def test_one_training_step_on_own_files(folder, tmp_path):
    lineage = {"source": "own"}
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    dialogue = {"id": "1", "conversation": {"messages": turns}, "lineage": lineage}
    (tmp_path / "data.jsonl").write_text((json.dumps(dialogue) + "\n") * 4)
    (tmp_path / "sft.toml").write_text(
        f'data = "{tmp_path}/data.jsonl"\nmodel = "{folder}/policy"\nout = "{tmp_path}/out"\n'
        "[train]\nlearning_rate = 1e-3\nbatch_size = 2\n"
    )
    done = flywright("sft", str(tmp_path / "sft.toml"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "weights" / "model.safetensors").is_file()
    other = flywright("sft", str(tmp_path / "sft.toml"), "--set", "seed=2")
    assert other.returncode == 2 and "holds another step's work" in other.stderr


def test_tables_come_as_json_too():
    done = flywright("plan", "params", "nemotron-4-340b", "--json")
    rows = {row["part"]: row["parameters"] for row in json.loads(done.stdout)}
    assert rows["non-embedding"] == 331_592_011_776 and rows["embeddings"] == 9_437_184_000


def test_dry_run_prints_both_turns():
    names = json.loads(flywright("run", "laptop", "--dry-run", "--json", cwd=ROOT).stdout)
    assert names[0] == "documents" and names[-2:] == ["2-verdict", "judges"]
    assert "2-base" in names and "2-eval-rpo3" in names


def test_served_requests_are_held_to_what_the_cache_and_the_reward_model_hold(folder, monkeypatch):
    apps = []
    monkeypatch.setattr(verbs.serving, "run", lambda app, *_: apps.append(app))
    verbs.serve_folder(folder / "policy", folder / "reward", ("127.0.0.1", 0), 6.3e-6, None)
    local = "http://127.0.0.1"
    client = TestClient(apps[0], base_url=local)  # the model's context is 96; 6.8 kB hold 48
    error = client.post("/v1/completions", json={"prompt": "fox", "max_tokens": 90}).json()["error"]
    assert "the context holds 48" in error["message"]

    def rated(answer: str):
        talk = Conversation.of("fox", answer).model_dump()
        return client.post("/v1/rewards", json=talk)

    assert rated("x" * 60).status_code == 200
    refused = rated("x" * 200)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"
