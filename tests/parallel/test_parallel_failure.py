"""A rank is killed in mid-collective under real torchrun: the job restarts and ends as if not."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# each step's collective is the sum of what the ranks hold; rank 0 saves after each
PROGRAM = """
import json, os, signal, sys
from pathlib import Path

import torch
import torch.distributed as dist

from flywright.files import read_json, write_json
from flywright.parallel import Watchdog, process_group
from flywright.spec import MeshSpec

state, attempt = Path(sys.argv[1]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
with process_group(MeshSpec(dp=2, timeout_seconds=30)):
    watchdog = Watchdog(30)
    done = read_json(state, missing_ok=True) or {"step": 0, "value": 1.0, "from": []}
    dist.barrier()
    done["from"].append(done["step"])
    for step in range(done["step"], 6):
        with watchdog.step(step):
            if (dist.get_rank(), step, attempt) == (1, 4, 0):
                os.kill(os.getpid(), signal.SIGKILL)
            value = torch.tensor(done["value"] * (dist.get_rank() + 1), dtype=torch.float64).sin()
            dist.all_reduce(value)
        done |= {"step": step + 1, "value": value.item()}
        if dist.get_rank() == 0:
            write_json(state, done)
        dist.barrier()
"""


def _torchrun(folder: Path, restarts: int) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", f"--max-restarts={restarts}"]
    return subprocess.run(
        [*command, str(folder / "program.py"), str(folder / "state.json")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )


@pytest.mark.slow
def test_a_killed_rank_ends_the_job_with_the_reason_and_a_restart_goes_on(tmp_path: Path) -> None:
    ended = _torchrun(tmp_path, restarts=0)
    assert ended.returncode == 1
    assert re.search(r"Root Cause.*rank +: 1 .*Signal 9 \(SIGKILL\)", ended.stderr, re.DOTALL)
    assert json.loads((tmp_path / "state.json").read_text())["step"] == 4
    (tmp_path / "state.json").unlink()

    restarted = _torchrun(tmp_path, restarts=1)
    assert restarted.returncode == 0, restarted.stderr
    state = json.loads((tmp_path / "state.json").read_text())
    assert (state["step"], state["from"]) == (6, [0, 4])
    value = 1.0
    for _ in range(6):
        value = math.sin(value) + math.sin(2 * value)
    assert state["value"] == pytest.approx(value, rel=1e-14)
