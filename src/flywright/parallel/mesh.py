"""The mesh of ranks: axes pp, dp, tp; tp innermost, so that it stays inside one machine.

torchrun --nproc-per-node 8 ...  then  `with process_group(spec) as device: build_mesh(spec, ...)`
"""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store, TCPStore  # dist's own, with their types
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import _set_pg_timeout

from flywright.errors import FlywrightError, PhaseEnds, Preempted, UserError
from flywright.parallel.watch import name_failure, record
from flywright.spec import MeshSpec

AXES = ("pp", "dp", "tp")
# the CPU's half serves what is agreed on or saved beside the GPUs' work
_BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}


def started_ranks() -> int:
    """How many ranks torchrun or Slurm started; 1 for a process started alone."""
    return int(_launch().get("WORLD_SIZE", 1))


@contextmanager
def process_group(spec: MeshSpec) -> Iterator[torch.device]:
    """Join the ranks that torchrun or Slurm started; gives this rank's device.

    One rank needs no group, and there is none. NCCL where CUDA is, else gloo; a collective that
    takes longer than twice `timeout_seconds` fails: a step's Watchdog, which tells more, is to come
    first. An error inside is told with its rank and host.
    Raises UserError where the ranks started are not pp x dp x tp, FlywrightError where they
    cannot reach each other.
    """
    launch = _launch()
    os.environ.update(launch)
    started = int(launch.get("WORLD_SIZE", 1))
    _refuse_other_size(spec, started)
    device = _device(int(launch.get("LOCAL_RANK", 0)))
    if started > 1:
        _join(device, _timeout(spec))
    try:
        yield device
    except (Preempted, PhaseEnds) as error:  # all ranks have agreed on it
        _leave()
        record(str(error))
        raise
    except Exception as error:  # without leaving: that could wait for ranks that hang
        if not launch:
            raise
        raise name_failure(error) from None
    _leave()


def build_mesh(spec: MeshSpec, device: str = "cpu") -> DeviceMesh:
    """A mesh (pp, dp, tp) over all ranks of the running process group.

    Raises UserError where the ranks started are not pp x dp x tp.
    """
    _refuse_other_size(spec, dist.get_world_size())
    mesh = init_device_mesh(device, (spec.pp, spec.dp, spec.tp), mesh_dim_names=AXES)
    for axis in AXES:  # torch gives each a time-out of its own
        _set_pg_timeout(_timeout(spec), mesh[axis].get_group())
    return mesh


def _timeout(spec: MeshSpec) -> timedelta:
    return timedelta(seconds=2 * spec.timeout_seconds)


def _refuse_other_size(spec: MeshSpec, started: int) -> None:
    if started != spec.ranks:
        raise UserError(
            f"mesh pp {spec.pp} x dp {spec.dp} x tp {spec.tp} needs {spec.ranks} ranks, "
            f"but {started} were started (docs/clusters.md)"
        )


def _launch() -> dict[str, str]:
    """torchrun's variables, or the same made of a Slurm step's; empty for a process alone.

    A step's own variables are asked for: the first process of an sbatch script has the job's, too.
    """
    env = os.environ
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    told = {name: env[name] for name in names if name in env}
    if "RANK" in told and "WORLD_SIZE" in told:
        return told
    if int(env.get("SLURM_STEP_NUM_TASKS", 1)) == 1:  # an interactive shell is a step of one task
        return {}
    return {
        "RANK": env["SLURM_PROCID"],
        "WORLD_SIZE": env["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": env["SLURM_LOCALID"],
        "MASTER_ADDR": first_host(env["SLURM_STEP_NODELIST"]),
        # below the ports that the system hands out; the Slurm script computes the same
        "MASTER_PORT": str(15000 + int(env["SLURM_JOB_ID"]) % 15000),
    } | told


def first_host(nodes: str) -> str:
    """The first of Slurm's list of nodes: `gpu003` of `gpu[003-010,012],cpu1`."""
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", nodes).split(",")[0]


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # a site may show each task its own GPU alone
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _join(device: torch.device, timeout: timedelta) -> None:
    env = os.environ
    if env.get("LOCAL_WORLD_SIZE") == env["WORLD_SIZE"] and sys.platform == "linux":
        # one machine, whose own name may resolve to nothing that gloo can reach
        env.setdefault("GLOO_SOCKET_IFNAME", "lo")
    rank, ranks = int(env["RANK"]), int(env["WORLD_SIZE"])
    try:
        agents = env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        store = _fresh_store(rank, timeout) if agents else None
        dist.init_process_group(
            _BACKENDS[device.type], timeout=timeout, store=store, rank=rank, world_size=ranks
        )
    except (RuntimeError, ValueError) as error:  # ValueError: a variable is missing
        reason = str(error).partition("\n")[0]
        where = f"{env.get('MASTER_ADDR', '')}:{env.get('MASTER_PORT', '')}"
        line = f"rank {rank} cannot meet the others at {where}: {reason}"
        raise FlywrightError(line) from None


def _fresh_store(rank: int, timeout: timedelta) -> Store:
    """Rank 0's own store, found through torchrun's.

    torchrun keeps its store over restarts, with the addresses of the ranks before, to which new
    ones would connect for ever. An old address of a store refuses, and the new one is asked for.
    """
    host, key = os.environ["MASTER_ADDR"], "flywright/port"
    shared = TCPStore(host, int(os.environ["MASTER_PORT"]), is_master=False, timeout=timeout)
    if rank == 0:
        own = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timeout)
        shared.set(key, str(own.port))
        return own
    deadline = time.monotonic() + timeout.total_seconds()
    while True:
        try:
            port = int(shared.get(key))
            own = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=2))
        except dist.DistError:
            if time.monotonic() > deadline:
                raise
        else:
            own.set_timeout(timeout)
            return own


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
