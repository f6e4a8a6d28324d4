"""The ground floor: settings name the near miss, records name file and line, files are whole."""

import os
from pathlib import Path

import pytest

from flywright.errors import FlywrightError, UserError
from flywright.files import (
    atomic_file,
    atomic_folder,
    folder_hash,
    named_disk_errors,
    remove_leftovers,
    write_text,
)
from flywright.recipe.settings import PretrainSettings
from flywright.records import (
    Comparison,
    Conversation,
    Dialogue,
    Lineage,
    read_jsonl,
    weighted_reward,
    write_jsonl,
)
from flywright.settings import apply_overrides, load_settings
from flywright.stats import bootstrap_mean, mean_of_means, paired_difference
from flywright.train.settings import TrainSettings

DIALOGUE = Dialogue(id="a", conversation=Conversation.of("q", "a"), lineage=Lineage(source="t"))


def test_unknown_key_names_the_near_miss(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text("learning_rat = 1e-3\nbatch_size = 2")
    with pytest.raises(UserError, match="'learning_rat'; did you mean 'learning_rate'"):
        load_settings(TrainSettings, path)
    path.write_text("learning_rate = 1e-3\nbatch_size = 0")
    with pytest.raises(UserError, match="batch_size"):
        load_settings(TrainSettings, path)
    path.write_text("learning_rate = ")
    with pytest.raises(UserError, match=r"s\.toml: not valid TOML"):
        load_settings(TrainSettings, path)


def test_overrides_reach_into_tables():
    tree = {"sft": {"train": {"epochs": 1}}}
    changed = apply_overrides(tree, ["sft.train.epochs=3", "name=x y", "a.b=[1, 2]"])
    assert changed == {"sft": {"train": {"epochs": 3}}, "name": "x y", "a": {"b": [1, 2]}}
    assert tree["sft"]["train"]["epochs"] == 1
    for bad in ("novalue", "sft.train.epochs.deep=1"):
        with pytest.raises(UserError, match="--set"):
            apply_overrides(tree, [bad])


def test_jsonl_round_trip(tmp_path):
    assert write_jsonl(tmp_path / "d.jsonl", [DIALOGUE] * 3) == 3
    assert list(read_jsonl(tmp_path / "d.jsonl", Dialogue)) == [DIALOGUE] * 3


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"id": "x"}', "not a Dialogue: conversation"),
        (b'{"id": 1, "conversation": {"messages": []}, "lineage": {"source": "s"}}', "not a"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path, line, reason):
    path = tmp_path / "d.jsonl"
    path.write_bytes(DIALOGUE.model_dump_json().encode() + b"\n\n" + line + b"\n")
    with pytest.raises(UserError, match=rf"d\.jsonl:3: .*{reason}"):
        list(read_jsonl(path, Dialogue))


def test_conversation_rules():
    assert Conversation.of("a", "b", system="") == Conversation.of("a", "b")
    with pytest.raises(ValueError, match="turn 1"):
        Conversation.model_validate(
            {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}
        )
    with pytest.raises(ValueError, match="end with an assistant"):
        Dialogue(id="x", conversation=Conversation.of("a"), lineage=Lineage(source="s"))
    with pytest.raises(ValueError, match="extra"):
        Comparison.model_validate({"surprise": 1})


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "f.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["f.txt"]  # noqa: PTH208
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "d") as folder:
        (folder / "x").write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == ["f.txt"]  # noqa: PTH208


def test_a_full_disk_is_one_line_that_names_the_file():
    with (
        pytest.raises(FlywrightError, match="/proc/flywright/x: cannot write"),
        atomic_file(Path("/proc/flywright/x")),
    ):
        pass
    full = Path("/dev/full")
    if full.exists():
        with pytest.raises(FlywrightError, match="No space left"), atomic_file(Path("/tmp/x")):
            full.write_text("x" * 10)


def test_what_killed_writers_left_is_removed(tmp_path):
    write_text(tmp_path / "kept.txt", "whole")
    (tmp_path / ".gitignore").write_text("kept too")
    write_text(tmp_path / ".weights.7.tmp" / "x", "in a folder")
    write_text(tmp_path / "step" / ".b.json.8.tmp", "a file")
    (tmp_path / "step" / ".weights.8.old").mkdir()
    remove_leftovers(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {"kept.txt", ".gitignore", "step"}


def test_libraries_that_hide_a_full_disk_are_told_from_other_errors(tmp_path):
    with (
        pytest.raises(FlywrightError, match=r"x: cannot write: .*No space"),
        named_disk_errors(tmp_path / "x"),
    ):
        raise RuntimeError("Error while serializing: No space left on device (os error 28)")
    with pytest.raises(FlywrightError, match="is the disk full"), named_disk_errors(tmp_path):
        raise OSError("100000 requested and 8176 written")
    with pytest.raises(RuntimeError, match="a bug"), named_disk_errors(tmp_path):
        raise RuntimeError("a bug")


def test_a_factor_of_zero_leaves_a_source_out():
    train = {"learning_rate": 1.0, "batch_size": 1, "samples": 1}
    blend, tokens = {"en": 1.0}, {"en.books": 300, "en.web": 100, "code.py": 50}
    phase = PretrainSettings(blend=blend, upweight={"web": 0}, train=train)
    assert phase.phases(tokens) == [(0, {"en.books": 1.0})]
    none = PretrainSettings(blend=blend, upweight={"web": 0, "books": 0}, train=train)
    with pytest.raises(UserError, match="no group 'en' of any weight"):
        none.phases(tokens)


def test_folder_hash_sees_names_and_bytes(tmp_path):
    (tmp_path / "a").write_text("1")
    before = folder_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = folder_hash(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({before, renamed, folder_hash(tmp_path)}) == 3


def test_statistics():
    interval = bootstrap_mean([0.0, 1.0] * 50)
    assert interval.mean == 0.5 and 0.35 < interval.low < 0.45 and interval.n == 100
    assert paired_difference([2.0, 3.0], [1.0, 2.0]).low == 1.0
    both = mean_of_means([[1.0] * 90, [0.0] * 10])
    assert both.mean == 0.5 and both.low == both.high == 0.5 and both.n == 100
    with pytest.raises(ValueError, match="empty group"):
        mean_of_means([[1.0], []])
    all_ones = dict.fromkeys(
        ("helpfulness", "correctness", "coherence", "complexity", "verbosity"), 1.0
    )
    assert weighted_reward(all_ones) == pytest.approx(0.3 + 0.74 + 0.46 + 0.47 - 0.33)
