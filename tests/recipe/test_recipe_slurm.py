"""The sbatch scripts, under a small Slurm of this file's own: queue, requeue, signals, phases.

sbatch, srun and scontrol are stand-ins with Slurm's rules: srun starts a process a task, hands
signals on, takes all down with the first bad one and ends with the highest status.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flywright.errors import UserError
from flywright.recipe.slurm import write_scripts
from flywright.spec import MeshSpec

TOY = Path(__file__).parents[1] / "road" / "toy.toml"
SRUN = """
import os, signal, subprocess, sys, time
arguments = sys.argv[1:]
while arguments[0].startswith("-"):
    arguments.pop(0)
count = int(os.environ["SLURM_NTASKS"])
tasks = [
    subprocess.Popen(arguments, env={**os.environ, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)})
    for i in range(count)
]
signal.signal(signal.SIGUSR1, lambda *_: [task.send_signal(signal.SIGUSR1) for task in tasks])
while any(task.poll() is None for task in tasks):
    if "--kill-on-bad-exit=1" in sys.argv and any(task.poll() for task in tasks):
        for task in tasks:
            task.terminate()
    time.sleep(0.01)
sys.exit(max(code if code >= 0 else 128 - code for code in (task.wait() for task in tasks)))
"""
SBATCH = """
import json, os, sys
with open(os.environ["QUEUE"], "a") as stream:
    stream.write(json.dumps(sys.argv[1:]) + "\\n")
print(f"{sum(1 for _ in open(os.environ['QUEUE']))};cluster")
"""
SCONTROL = """
import os, sys
if sys.argv[1:3] == ["show", "hostnames"]:
    print("\\n".join(sys.argv[3].split(",")))
elif sys.argv[1] == "requeue":
    open(os.environ["QUEUE"] + ".again", "a").write(sys.argv[2] + "\\n")
"""
# what each start does is told by the test: an exit status, "wait" for USR1, "state" then fail
FLYWRIGHT = """
import json, os, pathlib, signal, sys, time
rank, restart = int(os.environ["RANK"]), int(os.environ["SLURM_RESTART_COUNT"])
seen = pathlib.Path(os.environ["SEEN"])
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
kept = {name: os.environ[name] for name in names}
job = os.environ["SLURM_JOB_ID"]
def save(*_):  # rank 0 has done first, and leaves
    time.sleep(0.2 + rank)
    (seen / f"saved-{job}-{restart}").touch()
    sys.exit(75)
signal.signal(signal.SIGUSR1, save)
told = seen / f"{job}-{restart}-{rank}.json"
told.write_text(json.dumps({**kept, "arguments": sys.argv[1:], "here": os.getcwd()}))
doing = json.loads(os.environ["DOING"]).get(job, [])
now = doing[restart] if restart < len(doing) else 0
if now == "state":
    state = pathlib.Path(sys.argv[sys.argv.index("--out") + 1]) / "steps" / "state"
    state.mkdir(parents=True, exist_ok=True)
    (state / f"step-{restart}-{rank}").mkdir()
if now == "wait":
    time.sleep(60)
sys.exit(now if isinstance(now, int) else 1)
"""


class Slurm:
    """The stand-ins on a PATH of their own, and the controller that runs what is queued."""

    nodes, patience_seconds = "node1,node2", 60

    def __init__(self, folder: Path):
        self.seen = folder / "seen"
        (folder / "bin").mkdir()
        self.seen.mkdir()
        for name, text in {
            "srun": SRUN, "sbatch": SBATCH, "scontrol": SCONTROL, "flywright": FLYWRIGHT,
        }.items():  # fmt: skip
            path = folder / "bin" / name
            path.write_text(f"#!{sys.executable} -S\n{text}")
            path.chmod(0o755)
        self.queue = folder / "queue"
        self.env = os.environ | {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "QUEUE": str(self.queue),
            "SEEN": str(self.seen),
        }

    def run(self, submit: Path, doing: dict[str, list], *options: str) -> dict[str, list[int]]:
        """Submit, then run jobs as Slurm would; statuses of each job's starts, by its number."""
        subprocess.run(["bash", submit, *options], env=self.env, check=True)
        ended: dict[str, list[int]] = {}
        for number, line in enumerate(self.queue.read_text().splitlines(), 1):
            arguments = json.loads(line)
            before = [a.split(":")[1] for a in arguments if a.startswith("--dependency=afterok:")]
            if all(ended.get(job, [1])[-1] == 0 for job in before):
                ended[str(number)] = self._job(str(number), Path(arguments[-1]), doing)
        return ended

    def _job(self, number: str, script: Path, doing: dict[str, list]) -> list[int]:
        again, statuses = Path(f"{self.queue}.again"), []
        nodes, tasks = (
            int(re.search(rf"^#SBATCH --{name}=(\d+)$", script.read_text(), re.M)[1])
            for name in ("nodes", "ntasks-per-node")
        )
        while True:
            again.unlink(missing_ok=True)
            job = subprocess.Popen(
                ["bash", script],
                env=self.env | {
                    "SLURM_JOB_ID": number, "SLURM_NTASKS": str(nodes * tasks),
                    "SLURM_JOB_NODELIST": self.nodes, "DOING": json.dumps(doing),
                    "SLURM_RESTART_COUNT": str(len(statuses)),
                },
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
            warned = doing.get(number, [])[len(statuses) :][:1] == ["wait"]
            if warned:
                self._warn(job, f"{number}-{len(statuses)}-*.json", nodes * tasks)
            ended = job.wait(self.patience_seconds)
            assert not warned or (self.seen / f"saved-{number}-{len(statuses)}").exists()
            statuses.append(ended)
            if not again.exists():
                return statuses
            assert again.read_text() == f"{number}\n"

    def _warn(self, job: subprocess.Popen, started: str, ranks: int) -> None:
        """As --signal=B:USR1 does: to the script alone, once all ranks run."""
        while len(list(self.seen.glob(started))) < ranks:
            time.sleep(0.01)
        job.send_signal(signal.SIGUSR1)

    def told(self, job: int, restart: int) -> list[dict]:
        paths = sorted(self.seen.glob(f"{job}-{restart}-*.json"))
        return [json.loads(path.read_text()) for path in paths]


# the real program, which only tells when it ended with status 75
REAL = """
import os, pathlib
from flywright.cli import main
try:
    main()
except SystemExit as end:
    if end.code == 75:
        job = os.environ["SLURM_JOB_ID"] + "-" + os.environ["SLURM_RESTART_COUNT"]
        (pathlib.Path(os.environ["SEEN"]) / f"saved-{job}").touch()
    raise
"""


class RealSlurm(Slurm):
    """The jobs run flywright itself; a warning comes when the first training state stands."""

    nodes, patience_seconds = "localhost", 590

    def __init__(self, folder: Path):
        super().__init__(folder)
        path = folder / "bin" / "flywright"
        path.write_text(f"#!{sys.executable}\n{REAL}")
        self.env |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
        self._out = folder / "out"

    def _warn(self, job: subprocess.Popen, _started: str, _ranks: int) -> None:
        while not list(self._out.glob("steps/*/state/step-*")) and job.poll() is None:
            time.sleep(0.005)
        job.send_signal(signal.SIGUSR1)


@pytest.mark.slow
def test_a_real_ramp_over_two_jobs_and_a_preemption_is_one_training(tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    options = ["--until=pretrain", "--set=pretrain.train.checkpoint_every_steps=1"]
    mesh = MeshSpec(dp=2, dp_ramp=[(100, 1)])
    set_mesh = ["--set=mesh.dp=2", "--set=mesh.dp_ramp=[[100,1]]"]
    submit = write_scripts(TOY, out, mesh, options + set_mesh)
    assert RealSlurm(tmp_path).run(submit, {"1": ["wait"]}) == {"1": [0, 0], "2": [0]}
    log = (out / "log.txt").read_text()
    assert [log.count(f"+ {step}: ") for step in ("documents", "shards", "pretrain")] == [1, 1, 1]

    shutil.copytree(out / "steps", whole / "steps")
    shutil.rmtree(next((whole / "steps").glob("pretrain@*")))
    command = [sys.executable, "-m", "flywright.cli", "run", str(TOY), "--out", str(whole)]
    subprocess.run(command + options, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    ramped, alone = (
        [json.loads(line) for line in next(run.glob("steps/pretrain@*/metrics.jsonl")).open()]
        for run in (out, whole)
    )
    assert [line["step"] for line in ramped] == [line["step"] for line in alone]
    assert [line["tokens"] for line in ramped] == [line["tokens"] for line in alone]
    losses, expected = ([line["loss"] for line in lines] for lines in (ramped, alone))
    assert losses[:15] == expected[:15]  # one rank: bit for bit, also where it was preempted
    assert losses[15:] == pytest.approx(expected[15:], rel=1e-4)


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    return Slurm(tmp_path)


@pytest.fixture
def submit(tmp_path: Path) -> Path:
    """Two phases: two ranks, then four on two machines."""
    mesh = MeshSpec(tp=2, dp=2, dp_ramp=[(100, 1)])
    out = tmp_path / "a run"
    return write_scripts(tmp_path / "big.toml", out, mesh, ["--set=name=it's big"], gpus_per_node=2)


@pytest.fixture
def one_rank(tmp_path: Path) -> Path:
    """Whose status no other rank's hides."""
    return write_scripts(tmp_path / "small.toml", tmp_path / "out", MeshSpec(), [])


def test_each_phase_has_its_ranks_and_begins_after_the_one_before(slurm, submit, tmp_path) -> None:
    assert slurm.run(submit, {}, "--partition=gpu") == {"1": [0], "2": [0]}
    first, second = (json.loads(line) for line in slurm.queue.read_text().splitlines())
    assert "--partition=gpu" in first and "--partition=gpu" in second
    assert "--dependency=afterok:1" in second
    assert [len(slurm.told(job, 0)) for job in (1, 2)] == [2, 4]
    for rank, told in enumerate(slurm.told(2, 0)):
        assert told == {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "4",
            "MASTER_ADDR": "node1", "MASTER_PORT": "15002", "here": str(Path.cwd()),
            "arguments": [
                "run", str(tmp_path / "big.toml"), "--out", str(tmp_path / "a run"),
                "--set=name=it's big",
            ],
        }  # fmt: skip


def test_a_preempted_job_is_queued_again_and_goes_on(slurm, submit) -> None:
    """Also where the first rank that leaves takes the other along, which hides its status 75."""
    assert slurm.run(submit, {"1": ["wait"] * 4}) == {"1": [0] * 5, "2": [0]}


def test_status_75_without_a_warning_is_a_preemption_too(slurm, one_rank) -> None:
    assert slurm.run(one_rank, {"1": [75] * 5}) == {"1": [0] * 6}


def test_a_failure_is_tried_again_and_given_up_with_its_status(slurm, one_rank) -> None:
    assert slurm.run(one_rank, {"1": [1, 139]}) == {"1": [0, 0, 0]}
    slurm.queue.unlink()
    assert slurm.run(one_rank, {"1": [7] * 9}) == {"1": [0, 0, 0, 7]}


def test_failures_are_counted_from_the_last_new_state(slurm, one_rank) -> None:
    statuses = slurm.run(one_rank, {"1": [1, 1, "state", 1, 1, "state", 1, 1, 1]})
    assert statuses == {"1": [0] * 8 + [1]}


def test_what_was_asked_for_wrongly_is_not_tried_again(slurm, one_rank) -> None:
    assert slurm.run(one_rank, {"1": [2]}) == {"1": [2]}


def test_scripts_are_sound_and_say_what_slurm_needs(submit) -> None:
    scripts = [submit, *submit.parent.glob("phase-*.sh")]
    assert len(scripts) == 3
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
        if shutil.which("shellcheck"):
            subprocess.run(["shellcheck", script], check=True)
    text = (submit.parent / "phase-2.sh").read_text()
    for line in (
        "--job-name=big-2", "--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2", "--requeue",
        "--open-mode=append", "--signal=B:USR1@300",
        f"--output='{submit.parent}'/phase-2-%j.log",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in text
    assert "pp 1 x dp 2 x tp 2 = 4 ranks" in text


def test_ranks_that_do_not_fill_machines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mesh\.dp 3: 12 ranks do not fill machines of 8 GPUs"):
        write_scripts(tmp_path / "x.toml", tmp_path, MeshSpec(dp=3, tp=4), [])


def test_the_command_line_writes_scripts_and_runs_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flywright.cli", "run", str(TOY), "--slurm"]
    command += ["--out", str(tmp_path / "out"), "--set", "mesh.dp=4", "--seed", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"bash {tmp_path}/out/slurm/submit.sh\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["slurm"]
    script = (tmp_path / "out" / "slurm" / "phase-1.sh").read_text()
    assert "--nodes=1\n#SBATCH --ntasks-per-node=4\n" in script
    assert f"run {TOY} --out {tmp_path}/out --set=mesh.dp=4 --seed=0 &" in script
