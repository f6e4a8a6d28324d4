"""Published runs beside foretold ones: all that the profiles are fitted to, and more rows besides.

Sources of the numbers are in the tables' first column; benchmarks/planner.py measures the same.
"""

import csv
import json
from pathlib import Path

import pytest

from flywright.errors import UserError
from flywright.plan import check_rows, lay_out
from flywright.plan.check import CheckResult
from flywright.plan.rows import job_of, seconds_of

HERE = Path(__file__).parent
ROW = {
    "source": "NVIDIA/x", "layers": "4", "hidden": "512", "heads": "8", "vocab": "1000",
    "seq": "1024", "gbs": "16", "gpus": "8", "gpu": "H100", "iter_s": "1",
}  # fmt: skip


@pytest.fixture(scope="module")
def published() -> CheckResult:
    return check_rows(HERE / "published_rows.csv")


def test_published_times_are_foretold(published: CheckResult) -> None:
    assert len(published.rows) == 119
    assert published.mape(device="H100", precision="bf16") < 0.03
    assert published.mape() < 0.04
    largest = [row for row in published.rows if "2406.11704" in row["source"]]
    assert len(largest) == 3 and all(abs(row["error"]) < 0.05 for row in largest)
    json.dumps(published.to_json(), allow_nan=False)


def test_flops_of_the_spec_reproduce_every_published_mfu(published: CheckResult) -> None:
    assert sum(row["published_mfu"] is not None for row in published.rows) == 28
    assert published.worst_mfu_error() < 0.015


def test_published_memory_is_foretold(published: CheckResult) -> None:
    known = [row for row in published.rows if row["published_gib"]]
    assert len(known) == 6
    for row in known:
        assert row["predicted_gib"] == pytest.approx(row["published_gib"], rel=0.1), row["model"]


def test_rows_that_no_profile_is_fitted_to_are_foretold() -> None:
    result = check_rows(HERE / "unseen_rows.csv")
    assert len(result.rows) > 300
    assert result.mape() < 0.08
    assert result.mape(device="H100", precision="bf16") < 0.05
    for name in ("llm-foundry", "nemo-2025", "megatron-2021"):
        assert result.mape(software=name) < 0.08, name
    errors = [
        r["predicted_gib"] / r["published_gib"] - 1 for r in result.rows if r["published_gib"]
    ]
    assert sum(map(abs, errors)) / len(errors) < 0.1


def test_a_strangers_table_may_leave_out_what_is_usual(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as stream:  # as spreadsheets write
        writer = csv.DictWriter(stream, ROW)
        writer.writeheader()
        writer.writerow(ROW)
    (row,) = check_rows(path).rows
    assert (row["gpus"], row["precision"], row["model"]) == (8, "bf16", "")
    job = job_of(ROW)
    assert (job.mesh.dp, job.micro_batch, job.recompute) == (8, 1, "none")
    assert (job.spec.ffn_size, job.spec.kv_heads, job.spec.mlp) == (2048, 8, "squared_relu")
    assert job_of({**ROW, "cp": "2", "dp": "8"}).mesh.dp == 4  # dp counted the cp ranks
    assert job_of({**ROW, "vpp": "n/a", "mbs": "2.0", "pp": "2"}).micro_batch == 2
    assert job_of({**ROW, "glu": "1"}).spec.mlp == "swiglu"
    assert job_of({**ROW, "precision": "fp16"}).precision == "bf16"
    assert job_of({**ROW, "recompute": "none/selective"}).recompute == "selective"


def test_what_torchs_schedules_refuse_is_foretold_too(tmp_path: Path) -> None:
    """Seven micro-batches through interleaved stages: other software runs that."""
    path = tmp_path / "rows.csv"
    row = {**ROW, "pp": "2", "vpp": "2", "gbs": "28", "dp": "4"}
    path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    with pytest.raises(UserError, match="7 micro-batches"):
        lay_out(job_of(row))
    assert check_rows(path).rows[0]["predicted_seconds"] > 0


@pytest.mark.parametrize(
    ("said", "name", "network"),
    [
        ("H100-80GB SXM", "H100", 50e9),
        ("NVIDIA GB200 NVL72", "GB200", 50e9),
        ("A100 40GB", "A100-40GB", 25e9),
        ("A100-40GB (1.6Tb/s RoCE)", "A100-40GB", 25e9),
        ("A100-80GB (0.8 Tb/s)", "A100", 12.5e9),
        ("H100-96GB 500W", "H100-96GB", 50e9),
    ],
)
def test_devices_by_what_people_call_them(said: str, name: str, network: float) -> None:
    device = job_of({**ROW, "gpu": said}).device
    assert (device.name, device.network_bandwidth) == (name, network)


@pytest.mark.parametrize(
    ("source", "row", "profile"),
    [
        ("MosaicML llm-foundry README", {}, "llm-foundry"),
        ("Narayanan 2021", {}, "megatron-2021"),
        ("arXiv:2104.04473 Table 2 (ZeRO-3)", {}, "zero-3-2021"),
        ("a blog", {"tp": "8"}, "nemo-2025"),
        ("a blog", {}, "torchtitan-2024"),  # eight GPUs and nothing cut: sharded
        ("a blog", {"gpu": "A100"}, "llm-foundry"),
        ("a blog", {"gpu": "A100", "tp": "2"}, "megatron-2022"),
    ],
)
def test_profiles_by_source_or_else_by_kind(source: str, row: dict, profile: str) -> None:
    assert job_of({**ROW, "source": source, **row}).software.name == profile


def test_what_cannot_be_whole_is_sharded() -> None:
    """A model whose weights and gradients exceed a GPU, with neither tensors nor layers cut."""
    large = {**ROW, "source": "NVIDIA/x", "layers": "80", "hidden": "8192", "heads": "64"}
    assert job_of(large).software.fully_sharded
    assert not job_of({**large, "tp": "4", "pp": "2"}).software.fully_sharded
    old = {**large, "source": "arXiv:2104.04473 Table 2", "gpu": "A100"}
    assert job_of(old).software.name == "zero-3-2021"


def test_seconds_follow_from_published_rates() -> None:
    job = job_of(ROW)
    seconds = seconds_of({"published_mfu_pct": "50"}, job)
    work = job.spec.flops_per_token(1024) * 16 * 1024 / 8
    assert seconds == pytest.approx(work / (0.5 * 989e12))
    tflops = str(work / seconds / 1e12)
    assert seconds_of({"published_tflops": tflops}, job) == pytest.approx(seconds)
    full = job_of({**ROW, "recompute": "full"})
    assert seconds_of({"published_tflops": tflops}, full) == pytest.approx(seconds * 4 / 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gpu": "X1"}, "no device 'X1'"),
        ({"layers": ""}, "layers is blank"),
        ({"seq": "many"}, "seq 'many' is no whole number"),
        ({"tp": "3"}, "8 GPUs are no multiple of tp 3"),
        ({"iter_s": ""}, "none of iter_s"),
        ({"iter_s": "0"}, "a time of 0.0 s"),
        ({"gpu": "A100", "precision": "fp8"}, "A100 has no fp8"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict, said: str) -> None:
    path = tmp_path / "rows.csv"
    row = {**ROW, "precision": "", **change}
    path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    with pytest.raises(UserError, match=rf"rows\.csv:2: .*{said}"):
        check_rows(path)


def test_a_bad_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("source,model\n")
    with pytest.raises(UserError, match="no column 'layers'"):
        check_rows(path)
    path.write_text(",".join(list(ROW)[:-1]))
    with pytest.raises(UserError, match="no column of iter_s"):
        check_rows(path)
    with pytest.raises(UserError, match="cannot read"):
        check_rows(tmp_path / "absent.csv")


BRIEF = "layers,hidden,heads,vocab,seq,gbs,gpus,gpu,iter_s,precision\n"
LINE = "4,512,8,1000,1024,16,8,{gpu},{seconds},{precision}\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BRIEF.encode(), "a head without rows"),
        (BRIEF.encode() + b"caf\xe9\n", "not UTF-8 text"),
        (
            (BRIEF + LINE.format(gpu="B200", seconds=1, precision="NVFP4")).encode(),
            ":2: .*NVFP4",
        ),
        (
            (BRIEF + LINE.format(gpu="B200", seconds=-1, precision="bf16")).encode(),
            ":2: .*-1.0 s",
        ),
        (
            (BRIEF + LINE.format(gpu="B200", seconds="nan", precision="")).encode(),
            ":2: .*nan s",
        ),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, text: bytes, told: str) -> None:
    (tmp_path / "rows.csv").write_bytes(text)
    with pytest.raises(UserError, match=told):
        check_rows(tmp_path / "rows.csv")


def test_rows_of_unknown_devices_are_told_and_left_out(tmp_path: Path) -> None:
    rows = [LINE.format(gpu=gpu, seconds=1, precision="amp_bf16") for gpu in ("L40S", "H100")]
    (tmp_path / "rows.csv").write_text(BRIEF + "".join(rows))
    result = check_rows(tmp_path / "rows.csv")
    assert [row["device"] for row in result.rows] == ["H100"]
    assert "rows.csv:2: no device 'L40S'" in result.skipped[0]
