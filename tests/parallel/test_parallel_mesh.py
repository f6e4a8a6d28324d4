"""Joining the ranks that torchrun or Slurm started, and what is told where they do not fit."""

import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forked_ranks import free_port, run_ranks, torchrun_variables

from flywright.errors import FlywrightError, UserError
from flywright.parallel.mesh import build_mesh, first_host, process_group, started_ranks
from flywright.spec import MeshSpec


def slurm_variables(rank: int, ranks: int, _port: int) -> dict[str, str]:
    return {
        "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_JOB_ID": "777012",
        "SLURM_STEP_NUM_TASKS": str(ranks), "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(ranks),
    }  # fmt: skip


@pytest.fixture(autouse=True)
def started_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*torchrun_variables(0, 1, 1), *slurm_variables(0, 1, 1)):
        monkeypatch.delenv(name, raising=False)


def _start(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu7", "gpu7"),
        ("a1,b2", "a1"),
        ("gpu[003-010,012],cpu1", "gpu003"),
        ("rack[2,4]-n[01-08].example", "rack2-n01.example"),
    ],
)
def test_the_first_host_of_a_node_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_ranks_are_counted_from_torchrun_and_from_a_slurm_step(monkeypatch) -> None:
    assert started_ranks() == 1
    _start(monkeypatch, slurm_variables(3, 8, 0))
    assert started_ranks() == 8
    monkeypatch.delenv(
        "SLURM_STEP_NUM_TASKS"
    )  # as in an sbatch script: 8 tasks, no step of its own
    assert started_ranks() == 1
    _start(monkeypatch, torchrun_variables(0, 4, 1))
    assert started_ranks() == 4


def test_a_process_alone_needs_no_group() -> None:
    with process_group(MeshSpec()) as device:
        assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
        assert not dist.is_initialized()


def test_a_mesh_of_more_ranks_than_started_is_refused(monkeypatch) -> None:
    with pytest.raises(UserError, match="needs 2 ranks, but 1 were"), process_group(MeshSpec(dp=2)):
        pass
    _start(monkeypatch, torchrun_variables(0, 4, 1))
    with pytest.raises(UserError, match="pp 1 x dp 2 x tp 1 needs 2 ranks, but 4 were"):
        process_group(MeshSpec(dp=2)).__enter__()


def test_ranks_that_cannot_meet_say_where(monkeypatch) -> None:
    port = free_port()
    _start(monkeypatch, torchrun_variables(1, 2, port))
    alone = process_group(MeshSpec(dp=2, timeout_seconds=1))
    with pytest.raises(FlywrightError, match=f"rank 1 cannot meet the others at 127.0.0.1:{port}"):
        alone.__enter__()
    monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(FlywrightError, match="MASTER_ADDR expected, but not set"):
        process_group(MeshSpec(dp=2)).__enter__()


def _sum_over_ranks() -> None:
    spec = MeshSpec(dp=2)
    with process_group(spec) as device:
        total = torch.tensor(float(dist.get_rank() + 1))
        dist.all_reduce(total, group=build_mesh(spec, device.type)["dp"].get_group())
        assert total.item() == 3
    assert not dist.is_initialized()


@pytest.mark.parametrize("variables", [torchrun_variables, slurm_variables])
def test_started_ranks_compute_together(variables, tmp_path: Path) -> None:
    assert [end for end, _ in run_ranks(_sum_over_ranks, tmp_path, 2, variables)] == [0, 0]


def _rank_0_is_late() -> None:
    if os.environ["RANK"] == "0":
        time.sleep(1)
    _sum_over_ranks()


def test_ranks_of_a_restart_do_not_take_the_addresses_of_those_before(tmp_path: Path) -> None:
    """torchrun keeps its store over restarts, and what it told of ranks that are no more."""
    kept = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def variables(rank: int, ranks: int, _port: int) -> dict[str, str]:
        told = torchrun_variables(rank, ranks, kept.port)
        return told | {"TORCHELASTIC_USE_AGENT_STORE": "True"}

    for case in (_sum_over_ranks, _rank_0_is_late):
        assert [end for end, _ in run_ranks(case, tmp_path, 2, variables)] == [0, 0]


def _one_fails() -> None:
    with process_group(MeshSpec(dp=2, timeout_seconds=30)):
        if dist.get_rank() == 1:
            raise ValueError("a broken record")
        dist.barrier()


def test_an_error_of_one_rank_is_told_with_its_place_and_ends_the_others(tmp_path: Path) -> None:
    (first, waited), (second, told) = run_ranks(_one_fails, tmp_path)
    assert (first, second) == (1, 1)
    assert "rank 1 on " in told.splitlines()[-1]
    assert told.splitlines()[-1].endswith("ValueError: a broken record")
    assert "_one_fails" in told  # the traceback is before it
    assert "FlywrightError: rank 0 on " in waited
