"""A hang ends with all stacks, a wanted machine is heard of, an error is named."""

import ctypes
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forked_ranks import run_ranks

from flywright.errors import FlywrightError, GuardError, Preempted
from flywright.parallel.mesh import process_group
from flywright.parallel.watch import Preemption, Watchdog, name_failure
from flywright.spec import MeshSpec


def _never_comes_to_the_collective() -> None:
    time.sleep(600)


def _hang() -> None:
    with process_group(MeshSpec(dp=2)):
        dist.barrier()
        with Watchdog(2).step(3):
            if dist.get_rank() == 1:
                _never_comes_to_the_collective()
            dist.all_reduce(torch.ones(1))


def test_a_hung_collective_ends_every_rank_with_its_stacks(tmp_path: Path) -> None:
    (first, waited), (second, elsewhere) = run_ranks(_hang, tmp_path)
    assert (first, second) == (1, 1)
    assert f"rank 0 on {socket.gethostname()}: step 3 took longer than 2 s" in waited
    assert "in all_reduce" in waited
    assert "rank 1 on " in elsewhere
    assert "in _never_comes_to_the_collective" in elsewhere
    assert "in all_reduce" not in elsewhere


def _hang_with_pythons_lock() -> None:
    with Watchdog(1).step(0):
        ctypes.PyDLL(None).sleep(600)


def test_a_hang_that_keeps_pythons_lock_ends_too(tmp_path: Path) -> None:
    [(end, told)] = run_ranks(_hang_with_pythons_lock, tmp_path, ranks=1)
    assert end == 1
    assert "in _hang_with_pythons_lock" in told


def _steps_in_time() -> None:
    watchdog = Watchdog(0.5)
    for step in range(3):
        with watchdog.step(step):
            time.sleep(0.01)
    time.sleep(1.5)  # longer than a step may take and than the last resort: none is going on


def test_steps_in_time_are_left_alone(tmp_path: Path) -> None:
    assert run_ranks(_steps_in_time, tmp_path, ranks=1) == [(0, "")]


def _hang_and_tell() -> None:
    said = Path(os.environ["SAID"])
    with Watchdog(0.5, said.write_text).step(8):
        time.sleep(600)


def test_a_hang_is_told_to_the_log_and_to_torchrun(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SAID", str(tmp_path / "log.txt"))
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    [(end, _)] = run_ranks(_hang_and_tell, tmp_path, ranks=1)
    assert end == 1
    assert "step 8 took longer" in (tmp_path / "log.txt").read_text()
    told = json.loads((tmp_path / "error.json").read_text())["message"]["message"]
    assert "step 8 took longer" in told


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_is_noted_and_only_inside(number: signal.Signals) -> None:
    heard = []
    outer = signal.signal(number, lambda *_: heard.append(number))
    try:
        with Preemption() as preemption:
            assert not preemption.wanted
            os.kill(os.getpid(), number)
            assert preemption.wanted
        assert not heard
        os.kill(os.getpid(), number)
        assert heard == [number]
    finally:
        signal.signal(number, outer)


def test_an_error_is_named_once_for_people_and_once_for_torchrun(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    named = name_failure(GuardError("the loss is not finite"))
    assert isinstance(named, GuardError)
    assert str(named) == f"rank 5 on {socket.gethostname()}: the loss is not finite"
    told = json.loads((tmp_path / "error.json").read_text())["message"]["message"]
    assert told.endswith("the loss is not finite")


def _preempted() -> None:
    with process_group(MeshSpec(dp=2)), Preemption() as preemption:
        if dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        wanted = torch.tensor(int(preemption.wanted))
        dist.all_reduce(wanted, op=dist.ReduceOp.MAX)
        try:
            if wanted:
                raise Preempted(4)
        except FlywrightError as error:
            raise SystemExit(error.exit_status) from None


def test_ranks_that_agree_leave_together_with_status_75(tmp_path: Path) -> None:
    assert [end for end, _ in run_ranks(_preempted, tmp_path)] == [75, 75]
