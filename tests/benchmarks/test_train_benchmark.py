"""The training benchmark: what it counts, what it hands to the peer, and that both sides run."""

import sys
from pathlib import Path

import pytest

import train
from flywright.records import Comparison, Conversation, Dialogue, Lineage
from train import Contest, Material, Run

LINEAGE = Lineage(source="test")


@pytest.fixture
def stuff(tokenizer, tmp_path) -> Material:
    words = ("apple", "pear", "plum", "fox", "dog", "lazy", "brown", "quick")
    dialogues = [
        Dialogue(id=a + b, conversation=Conversation.of(f"Sort {a} {b}", b), lineage=LINEAGE)
        for a in words
        for b in words[:2]
    ]
    pairs = [
        Comparison(
            id=a, conversation=Conversation.of("Sort " + "fox " * 40), chosen=a,
            rejected=f"{a} dog", lineage=LINEAGE,
        )
        for a in words
    ]  # fmt: skip
    return Material(Path(tmp_path), tokenizer, dialogues, pairs)


def run_of(*speeds: int) -> Run:
    return Run([{"tokens": 10 * speed, "seconds": 10.0, "loss": 0.0} for speed in speeds], 0.0)


def test_speed_leaves_the_warm_steps_out():
    assert run_of(1, 1, 30, 50).speed == 40


def test_the_peer_is_its_fastest_setting_by_medians():
    runs = {"ours": [run_of(0, 0, 90)] * 3, "slow": [run_of(0, 0, n) for n in (10, 99, 20)]}
    runs["fast"] = [run_of(0, 0, n) for n in (30, 1, 30)]
    found = train.row("sft", "2M", runs)
    assert (found["ours"], found["peer"], found["peer_name"]) == (90, 30, "fast")
    assert found["ratio"] == 3.0 and found["what"] == "sft"


@pytest.mark.parametrize("what", ["sft", "dpo", "reward"])
def test_the_peer_gets_the_same_tokens(stuff, what):
    samples = stuff.samples(what)
    rows = train.rows_of(what, samples)
    parts = {"sft": ["input_ids"], "reward": ["chosen_ids", "rejected_ids"]}
    names = parts.get(what, ["prompt_ids", "chosen_ids", "prompt_ids", "rejected_ids"])
    assert sum(len(row[name]) for row in rows for name in names) == train.real_tokens(samples)
    if what == "sft":
        trained = sum(label != -100 for row in rows for label in row["labels"])
        assert trained == sum(int(sample.masks[0].sum()) for sample in samples)
    if what == "dpo":
        shared = sum(2 * len(row["prompt_ids"]) for row in rows) / train.real_tokens(samples)
        assert shared == pytest.approx(train.prompt_share(samples[0]), abs=0.02) and shared > 0.6


def test_what_cannot_be_measured_is_left_out_and_told(stuff, capsys):
    contest = Contest(stuff, "sft", "2M", stuff.samples("sft")[:4], 2)
    assert train.tried(contest, "false", [{"rows": 4, "weights": "fp32"}]) == []
    assert "'rows': 4, 'weights': 'fp32'}: exit 1" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("what", ["sft", "dpo", "reward"])
def test_both_sides_train_alike(stuff, what):
    pytest.importorskip("trl", reason="TRL is not installed: pip install -e '.[dev]'")
    samples = stuff.samples(what)[:8]
    contest = Contest(stuff, what, "2M", samples, 4, "fp32", rate=1e-3)
    ours, theirs = contest.ours(), contest.theirs(sys.executable, {"rows": 4, "weights": "fp32"})
    assert [step["tokens"] for step in ours.steps] == [step["tokens"] for step in theirs.steps]
    for one, other in zip(ours.steps, theirs.steps, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=2e-5)
