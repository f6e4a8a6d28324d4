"""What a cluster does to a training, done to the real program as a person starts it with torchrun.

A rank is killed, stopped, warned or given a NaN; a file is missing. Runs are compared bit for bit
with one that nothing happened to.
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from forked_ranks import run_ranks

from flywright import cli
from flywright.errors import FlywrightError
from flywright.files import locked
from flywright.model import Decoder, save
from flywright.recipe.single import train_one
from flywright.tokenizer import chat
from flywright.train.passes import Passes

MESHES = ("dp", "tp", "pp")
MEASURED = re.compile(r"seconds|tokens_per_second|memory_bytes|mfu")
SETTINGS = """
out = "{here}/out"
data = "{here}/talks.jsonl"
model = "{here}/base"
[train]
learning_rate = 1e-3
batch_size = 4
samples = 64
micro_batch_tokens = 128
precision = "fp32"
checkpoint_every_steps = 2
"""


@pytest.fixture(scope="module")
def here(tokenizer, tmp_path_factory) -> Path:
    """A tiny base, talks, and settings that train 16 steps."""
    from flywright.spec import ModelSpec

    folder = tmp_path_factory.mktemp("failure")
    spec = ModelSpec(
        vocab_size=400, hidden_size=32, layers=2, heads=4, kv_heads=2, head_dim=8,
        ffn_size=64, context_length=128, init_std=0.05,
    )  # fmt: skip
    save(Decoder(spec, seed=0), folder / "base", chat.end_ids(tokenizer), pad_id=tokenizer.pad_id)
    tokenizer.save(folder / "base")
    talks = [
        [{"role": "user", "content": f"Count to {n}."}, {"role": "assistant", "content": "1 2" * n}]
        for n in range(1, 17)
    ]
    lines = "".join(json.dumps({"messages": talk}) + "\n" for talk in talks)
    (folder / "talks.jsonl").write_text(lines)
    (folder / "sft.toml").write_text(SETTINGS.format(here=folder))
    return folder


class Job:
    """`torchrun ... -m flywright.cli sft`, with what it tells, and its ranks' processes."""

    def __init__(self, here: Path, out: str, *overrides: str, restarts: int = 0):
        self.out, self._told = here / out, here / f"{out}.txt"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node=2", f"--max-restarts={restarts}", "-m", "flywright.cli"]
        command += ["sft", str(here / "sft.toml"), f"--set=out={self.out}"]
        with self._told.open("a") as stream:
            self.process = subprocess.Popen(
                command + [f"--set={one}" for one in overrides],
                stdout=stream, stderr=stream, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def rank(self, number: int) -> int:
        """Its process."""
        parent = f"PPid:\t{self.process.pid}\n"
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                if parent in status.read_text():
                    variables = status.with_name("environ").read_text().split("\0")
                    if f"RANK={number}" in variables:
                        return int(status.parent.name)
            except OSError:  # it has just ended
                continue
        raise LookupError(f"no rank {number}")

    def wait_for_state(self) -> "Job":
        """Until it is in mid-training with a whole state on disk."""
        while not list(self.out.glob("state/step-*")):
            assert self.process.poll() is None, self.told()
            time.sleep(0.005)
        self.first_step = first_line(self.out)
        return self

    def signal(self, rank: int, number: signal.Signals) -> None:
        os.kill(self.rank(rank), number)

    def told(self) -> str:
        return self._told.read_text()

    def ends(self) -> int:
        """Its status; it has a minute."""
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()


def steps(out: Path) -> list[dict]:
    """The lines of metrics.jsonl, without what is measured."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in line if not MEASURED.search(name)} for line in lines]


def first_line(out: Path) -> str:
    """With what is measured: another one, where step 1 was done again."""
    with (out / "metrics.jsonl").open() as stream:
        return stream.readline()


def weights(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "weights").iterdir()}


def assert_as_if_nothing_had_happened(job: Job, undisturbed: Path) -> None:
    out = job.out
    assert first_line(out) == job.first_step  # gone on with, not begun anew
    assert [line["step"] for line in steps(out)] == list(range(1, 17))
    assert steps(out) == steps(undisturbed)
    assert weights(out) == weights(undisturbed)
    assert not (out / "state").exists()


@pytest.fixture(scope="module")
def undisturbed(here) -> Callable[[str], Path]:
    """A mesh's own run, made when first asked for."""

    def run(axis: str) -> Path:
        out = here / f"undisturbed-{axis}"
        if not out.exists():
            job = Job(here, out.name, f"mesh.{axis}=2")
            assert job.ends() == 0, job.told()
            assert job.told().count("sft: done") == 1  # the first rank speaks for all
        return out

    return run


@pytest.mark.slow
@pytest.mark.parametrize("axis", MESHES)
def test_a_killed_rank_is_started_again_and_the_run_ends_as_if_not(here, undisturbed, axis) -> None:
    job = Job(here, f"killed-{axis}", f"mesh.{axis}=2", restarts=2).wait_for_state()
    before = job.rank(1)
    job.signal(1, signal.SIGKILL)
    assert job.ends() == 0, job.told()
    assert f"exitcode: -9) local_rank: 1 (pid: {before})" in job.told()
    assert_as_if_nothing_had_happened(job, undisturbed(axis))


@pytest.mark.slow
def test_without_restarts_a_killed_rank_ends_the_job_with_the_reason(here, undisturbed) -> None:
    job = Job(here, "ended", "mesh.dp=2").wait_for_state()
    job.signal(0, signal.SIGKILL)
    assert job.ends() == 1
    assert re.search(r"Root Cause.*rank +: 0 .*Signal 9 \(SIGKILL\)", job.told(), re.DOTALL)
    again = Job(here, "ended", "mesh.dp=2")
    assert again.ends() == 0, again.told()
    assert_as_if_nothing_had_happened(job, undisturbed("dp"))


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["dp", "pp"])
def test_a_warned_rank_takes_all_to_a_state_and_status_75(here, undisturbed, axis) -> None:
    job = Job(here, f"warned-{axis}", f"mesh.{axis}=2").wait_for_state()
    job.signal(1, signal.SIGUSR1)
    assert job.ends() == 1  # torchrun's own; it tells of the ranks'
    [step] = re.findall(r"^flywright: preempted at step (\d+); the same", job.told(), re.M)
    assert re.search(r"Root Cause.*exitcode  : 75 .*traceback : preempted", job.told(), re.DOTALL)
    newest = sorted(job.out.glob("state/step-*"))[-1]
    assert newest.name == f"step-{int(step):08d}"
    assert steps(job.out)[-1]["step"] == int(step)
    again = Job(here, job.out.name, f"mesh.{axis}=2")
    assert again.ends() == 0, again.told()
    assert_as_if_nothing_had_happened(job, undisturbed(axis))


@pytest.mark.slow
def test_a_rank_that_stands_still_ends_the_job_with_the_others_stacks(here) -> None:
    job = Job(here, "hung", "mesh.dp=2", "mesh.timeout_seconds=8").wait_for_state()
    job.signal(1, signal.SIGSTOP)
    assert job.ends() == 1
    told = r"^flywright: rank 0 on \S+: step \d+ took longer than 8 s; its stacks:\n.* in fit$"
    assert re.search(told, job.told(), re.DOTALL | re.MULTILINE)
    assert re.search(r"Root Cause.*traceback : rank 0 on \S+: step \d+ took", job.told(), re.DOTALL)
    assert "NoneType" not in job.told()


def _nan_on_the_last_rank(here: Path, out: Path, axis: str) -> None:
    """The real program; in its 8th step a weight that rank 1 alone holds turns to NaN."""
    run, calls = Passes.run, [0]

    def faulty(self: Passes, *arguments) -> None:
        calls[0] += 1
        if (calls[0], os.environ["RANK"]) == (8, "1"):
            weight = next(self.parts[-1].model.layers.parameters())
            with torch.no_grad():
                getattr(weight, "_local_tensor", weight).fill_(math.nan)
        run(self, *arguments)

    Passes.run = faulty  # type: ignore[method-assign] - in this forked process alone
    sys.argv = ["flywright", "sft", str(here / "sft.toml"), "--set", f"out={out}"]
    sys.argv += ["--set", f"mesh.{axis}=2"]
    cli.LINGER_SECONDS = 0  # nobody ends the second
    cli.main()


@pytest.mark.parametrize("axis", ["dp", "pp"])
def test_a_nan_on_one_rank_stops_all_at_the_last_good_state(here, tmp_path, axis) -> None:
    out = tmp_path / "out"
    ends = run_ranks(partial(_nan_on_the_last_rank, here, out, axis), tmp_path)
    line = "step 7: loss is nan; stopped at the last good state\n"
    for rank, (end, told) in enumerate(ends):
        assert end == 1 and told.startswith(f"flywright: rank {rank} on ") and told.endswith(line)
        assert told.count("\n") == 1
    assert [path.name for path in sorted(out.glob("state/*"))][-1] == "step-00000006"
    assert [line["step"] for line in steps(out)] == list(range(1, 8))
    assert all(math.isfinite(line["loss"]) for line in steps(out))
    assert not (out / "weights").exists()


@pytest.mark.slow
def test_what_was_asked_for_wrongly_is_told_once(here) -> None:
    """The first rank alone looks at the file; the other ends with it, and with the same status."""
    job = Job(here, "wrong", "mesh.dp=2", "data=missing.jsonl")
    assert job.ends() == 1
    [told] = re.findall("^flywright: (.*)", job.told(), re.M)
    assert re.match(r"rank 0 on \S+: missing.jsonl: cannot read: ", told)
    assert "exitcode  : 2 " in job.told() and "Connection closed" not in job.told()
    assert "src/flywright" not in job.told()  # no traceback of ours


@pytest.fixture
def held(here) -> Iterator[Path]:
    with locked(here / "held"):
        yield here / "held"


def test_two_runs_do_not_work_in_one_folder(here, held) -> None:
    with pytest.raises(FlywrightError, match="held: another run is at work there"):
        train_one("sft", here / "sft.toml", [f"out={held}"])
    assert [path.name for path in held.iterdir()] == [".lock"]
