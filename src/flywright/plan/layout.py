"""Search the layouts that fit a model on a cluster, fastest first.

best, *others = search(preset("nemotron-4-340b"), cluster("H100", 6144), batch=2304)
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from flywright.errors import UserError
from flywright.plan.devices import MACHINE_GPUS, Cluster
from flywright.plan.job import Job, Precision
from flywright.plan.memory import Memory, memory
from flywright.plan.software import NEMO, Software
from flywright.plan.time import Time, iteration_time
from flywright.spec import MeshSpec, ModelSpec

MICRO_BATCHES = (1, 2, 4, 8)
REPLAYED = 12  # candidates whose schedule is replayed op by op


@dataclass(frozen=True)
class Layout:
    """One way to lay the job out, with what it takes."""

    job: Job
    time: Time
    memory: Memory

    def row(self) -> dict[str, Any]:
        """Flat, for tables and JSON; memory in GiB, times in seconds."""
        mesh = self.job.mesh
        return {
            "tp": mesh.tp,
            "pp": mesh.pp,
            "virtual": mesh.virtual,
            "dp": mesh.dp,
            "micro_batch": self.job.micro_batch,
            "recompute": self.job.recompute,
            "seconds": self.time.seconds,
            "mfu": self.time.mfu,
            "mfu_causal": self.time.mfu_causal,
            "bubble": self.time.bubble,
            "memory_gib": self.memory.gib,
            "messages": self.time.messages,
        }


def search(
    spec: ModelSpec,
    cluster: Cluster,
    batch: int,
    sequence: int = 4096,
    precision: Precision = "bf16",
    software: Software = NEMO,
    limit: int = 10,
) -> list[Layout]:
    """Layouts that fit, by iteration time; `batch` in sequences.

    Raises UserError where none fits, saying what the least memory hungry one would need.
    """
    if precision == "fp8" and not cluster.device.fp8_flops:
        raise UserError(f"{cluster.device.name} has no fp8")
    base = Job(
        spec, cluster.device, MeshSpec(), batch, sequence=sequence, precision=precision,
        software=software,
    )  # fmt: skip
    quick = [_quick(job) for job in _candidates(base, cluster.gpus)]
    if not quick:
        raise UserError(f"no mesh of {cluster.gpus} GPUs divides batch {batch} and the model")
    fitting = [each for each in quick if each.memory.fits(cluster.device.memory_bytes)]
    if not fitting:
        least = min(quick, key=lambda each: each.memory.total)
        raise UserError(
            f"nothing fits {cluster.gpus} x {cluster.device.name}: the smallest layout needs "
            f"{least.memory.gib:.0f} GiB a GPU; take more GPUs"
        )
    fitting.sort(key=lambda each: each.time.seconds)
    exact = [_exact(each.job) for each in fitting[:REPLAYED]]
    exact = [each for each in exact if each.memory.fits(cluster.device.memory_bytes)]
    return sorted(exact, key=lambda each: each.time.seconds)[:limit]


def lay_out(job: Job) -> Layout:
    """Time and memory of one given layout, the schedule replayed."""
    return _exact(job)


def _quick(job: Job) -> Layout:
    time = iteration_time(job, by_formula=True)
    return Layout(job, time, memory(job, time.in_flight))


def _exact(job: Job) -> Layout:
    time = iteration_time(job)
    return Layout(job, time, memory(job, time.in_flight))


def _candidates(base: Job, gpus: int) -> Iterator[Job]:
    for mesh in _meshes(base.spec, gpus):
        for micro_batch in MICRO_BATCHES:
            each, rest = divmod(base.batch, mesh.dp * micro_batch)
            interleaves = mesh.virtual == 1 or each % mesh.pp == 0
            if rest == 0 and each >= mesh.pp and interleaves:
                job = replace(base, mesh=mesh, micro_batch=micro_batch)
                yield job
                yield replace(job, recompute="full")


def _meshes(spec: ModelSpec, gpus: int) -> Iterator[MeshSpec]:
    for tp in _divisors(MACHINE_GPUS):
        if gpus % tp or spec.heads % tp or spec.kv_heads % tp:
            continue
        for pp in _divisors(spec.layers):
            if (gpus // tp) % pp:
                continue
            for virtual in _divisors(spec.layers // pp) if pp > 1 else [1]:
                yield MeshSpec(tp=tp, pp=pp, dp=gpus // tp // pp, virtual=virtual)


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]
