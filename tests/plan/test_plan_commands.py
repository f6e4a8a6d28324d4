"""`flywright plan`: tables that fit a terminal, JSON, a picture, and one line for what is wrong."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flywright.errors import UserError
from flywright.plan.commands import app
from flywright.spec import preset

SMALL = ["layout", "nemotron-4-15b", "--gpus", "16", "--batch", "64"]


def plan(*arguments: str) -> str:
    """What a command prints on a terminal of 100 columns."""
    done = CliRunner(env={"COLUMNS": "100"}).invoke(app, arguments, obj=preset)
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_layouts_as_a_table_and_as_json() -> None:
    table = plan(*SMALL, "--tokens", "1e12", "--limit", "3")
    assert "…" not in table and max(map(len, table.splitlines()[:9])) <= 100
    for said in ("s/iter", "MFU", "causal", "bubble", "GiB", "days", "GPU-hours", "optimizer"):
        assert said in table
    rows = json.loads(plan(*SMALL, "--tokens", "1e12", "--limit", "3", "--json"))
    assert len(rows) == 3
    assert sum(rows[0]["memory"].values()) == pytest.approx(rows[0]["memory_gib"])
    steps = 1e12 / (64 * 4096)
    assert rows[0]["days"] == pytest.approx(steps * rows[0]["seconds"] / 86_400)


def test_one_layout_on_another_cluster_with_other_software() -> None:
    asked = (*SMALL, "--mesh", "tp=2,pp=4,virtual=2", "--device", "A100", "--json")
    (fast,) = json.loads(plan(*asked))
    assert (fast["tp"], fast["pp"], fast["virtual"], fast["dp"]) == (2, 4, 2, 2)
    (slow,) = json.loads(plan(*asked, "--network", "1", "--link", "10"))
    assert slow["seconds"] > 1.2 * fast["seconds"]
    (old,) = json.loads(plan(*asked, "--profile", "megatron-2021"))
    assert old["seconds"] > fast["seconds"]


def test_the_picture_shows_every_op(tmp_path: Path) -> None:
    path = tmp_path / "schedule.svg"
    asked = ["--gpus", "8", "--batch", "8", "--mesh", "tp=2,pp=4,virtual=2"]
    plan("layout", "nemotron-4-15b", *asked, "--picture", str(path))
    texts = [node.text for node in ElementTree.parse(path).iter() if node.tag.endswith("text")]
    # 8 micro-batches forward and backward through 8 chunks; numbers below 4 are ranks, too
    assert [texts.count(str(number)) for number in range(4, 8)] == [16] * 4
    with pytest.raises(UserError, match=r"written as \.svg or \.png"):
        plan(*SMALL, "--mesh", "tp=2,pp=4", "--picture", str(tmp_path / "schedule.gif"))


def test_inference_is_the_cards_table() -> None:
    rows = json.loads(plan("layout", "nemotron-4-340b", "--inference", "--json"))
    least = {(row["device"], row["precision"]): row["gpus"] for row in rows}
    assert (least["H200", "bf16"], least["H100", "bf16"], least["A100", "bf16"]) == (8, 16, 16)
    assert least["H100", "fp8"] == 8 and ("A100", "fp8") not in least
    assert "H200" in plan("layout", "nemotron-4-340b", "--inference", "--batch", "8")
    asked = ("--inference", "--json", "--device", "H100", "--precision", "fp8")
    assert json.loads(plan("layout", "nemotron-4-340b", *asked)) == [
        row for row in rows if (row["device"], row["precision"]) == ("H100", "fp8")
    ]
    (long,) = json.loads(plan("layout", "nemotron-4-340b", *asked, "--sequence", "8192"))
    assert long["cache_gib"] == 2 * rows[0]["cache_gib"]


def test_check_prints_both_and_the_error() -> None:
    rows = str(Path(__file__).with_name("published_rows.csv"))
    assert "of 119 rows" in plan("check", rows)
    assert {"rows", "mape", "mape_by_software"} <= set(json.loads(plan("check", rows, "--json")))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["layout", "nemotron-4-15b"], "needs --batch and --gpus"),
        ([*SMALL, "--profile", "nemo"], "no profile 'nemo'; known: zero-3-2021"),
        ([*SMALL, "--device", "A100", "--precision", "fp8"], "A100 has no fp8"),
        (["layout", "nemotron-5", "--inference"], "no model preset"),
        ([*SMALL, "--inference"], "finds the number of GPUs itself: omit --gpus"),
        (["layout", "nemotron-4-15b", "--inference", "--mesh", "tp=8"], "itself: omit --mesh"),
        (["layout", "nemotron-4-15b", "--inference", "--tokens", "1e9"], "itself: omit --tokens"),
        (
            ["layout", "nemotron-4-15b", "--inference", "--device", "A100", "--precision", "fp8"],
            "A100 has no fp8",
        ),
        (["layout", "nemotron-4-15b", "--inference", "--device", "X9"], "no device 'X9'"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        plan(*arguments)
    assert "\n" not in str(caught.value)
