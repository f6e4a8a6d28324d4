"""The whole road at toy size, as a person runs it; killed and gone on with, it ends the same."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from road_artifacts import ENVIRONMENT, TOY, artifacts

from flywright import Engine, load


def flywright(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flywright.cli", *arguments]
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=500, **options
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    done = flywright("run", str(TOY), "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_step_is_done_and_said_of_itself(whole):
    names = flywright("run", str(TOY), "--dry-run").stdout.split()
    assert len(names) > 20
    for name in names:
        manifest = json.loads(next((whole / "steps").glob(f"{name}@*/manifest.json")).read_text())
        assert manifest["name"] == name and manifest["seconds"] >= 0
    assert not list(whole.rglob("begun.json")) and not list(whole.rglob("*.tmp"))


def test_the_stage_table_has_the_contracts_shape(whole):
    rows = json.loads((whole / "report" / "stages.json").read_text())
    stages = ["teacher", "base", "code_sft", "sft", "dpo", "rpo1", "rpo2", "rpo3"]
    assert [row["stage"] for row in rows] == stages and {row["turn"] for row in rows} == {1}
    for row in rows:
        for name in ("accuracy", "instruction_following", "code", "reward"):
            value = row["metrics"][name]
            assert value["low"] <= value["mean"] <= value["high"] and value["n"] > 0
    facts = json.loads((whole / "report" / "facts.json").read_text())
    assert 0 <= facts["reward_model"]["pair_accuracy"] <= 1
    assert facts["synthetic_share"] > 0.98
    assert facts["steps"]["pretrain"]["tokens"] > 0


def test_the_policy_opens_and_answers(whole):
    model, tokenizer = load(str(whole / "policy"))
    assert model.spec.vocab_size == tokenizer.vocab_size
    (completion,) = Engine(whole / "policy").generate(["The"], max_new_tokens=5)
    assert 1 <= len(completion.token_ids) <= 5
    reward, _ = load(str(whole / "reward"))
    assert reward.score.out_features == 5
    said = flywright("chat", str(whole / "policy"), input="Sort these words: pear apple\n\n")
    assert said.returncode == 0 and said.stdout.count(">") == 2


def test_a_finished_run_does_nothing_again(whole):
    before = artifacts(whole)
    again = flywright("run", str(TOY), "--out", str(whole))
    assert again.returncode == 0 and "+ " not in again.stdout
    assert artifacts(whole) == before


def test_killed_again_and_again_it_ends_the_same(whole, tmp_path):
    """SIGKILL at five moments drawn from a fixed seed, then the same command to the end."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "flywright.cli", "run", str(TOY), "--out", str(out)]
    moments = random.Random(3)
    for _ in range(5):
        child = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        time.sleep(5 + 6 * moments.random())
        child.send_signal(signal.SIGKILL)
        child.wait()
    done = flywright("run", str(TOY), "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    found, expected = artifacts(out), artifacts(whole)
    assert found.keys() == expected.keys()
    assert {name for name in expected if found[name] != expected[name]} == set()
