"""Search the layouts that fit a model on a cluster, fastest first.

best, *others = search(preset("nemotron-4-340b"), device("H100"), 6144, batch=2304)
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from flywright.errors import UserError
from flywright.plan.devices import MACHINE_GPUS
from flywright.plan.job import Job, Precision
from flywright.plan.memory import Memory, memory
from flywright.plan.software import NEMO, Software
from flywright.plan.time import Time, iteration_time
from flywright.spec import DeviceSpec, MeshSpec, ModelSpec

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
    device: DeviceSpec,
    gpus: int,
    batch: int,
    sequence: int = 4096,
    precision: Precision = "bf16",
    software: Software = NEMO,
    limit: int = 10,
) -> list[Layout]:
    """Layouts that fit so many GPUs, by iteration time; `batch` in sequences.

    Raises UserError where none fits, saying what the least memory hungry one would need.
    """
    if precision == "fp8" and not device.fp8_flops:
        raise UserError(f"{device.name} has no fp8")
    base = Job(
        spec, device, MeshSpec(), batch, sequence=sequence, precision=precision, software=software
    )
    quick = [lay_out(job, by_formula=True) for job in _candidates(base, gpus)]
    if not quick:
        raise UserError(f"no mesh of {gpus} GPUs divides batch {batch} and the model")
    fitting = [each for each in quick if each.memory.fits(device.memory_gib)]
    if not fitting:
        least = min(quick, key=lambda each: each.memory.total)
        raise UserError(
            f"nothing fits {gpus} x {device.name}: the smallest layout needs "
            f"{least.memory.gib:.0f} GiB a GPU; take more GPUs"
        )
    fitting.sort(key=lambda each: each.time.seconds)
    exact = [lay_out(each.job) for each in fitting[:REPLAYED]]
    exact = [each for each in exact if each.memory.fits(device.memory_gib)]
    return sorted(exact, key=lambda each: each.time.seconds)[:limit]


def params_table(spec: ModelSpec) -> list[dict[str, Any]]:
    """Rows {part, parameters, share of the total}; non-embedding sums up the rows before it.

    The table of SPEC 1.2 for any spec.
    """
    parts = {
        "attention": spec.layers * spec.attention_parameters,
        "mlp": spec.layers * spec.mlp_parameters,
        "norms": (2 * spec.layers + 1) * spec.norm_parameters,
        "non-embedding": spec.non_embedding_parameters,
        "embeddings": spec.embedding_parameters,
        "total": spec.parameters,
    }
    total = spec.parameters
    return [{"part": part, "parameters": n, "share": n / total} for part, n in parts.items()]


def lay_out(job: Job, by_formula: bool = False) -> Layout:
    """Time and memory of one given layout, the schedule replayed (or by its closed form)."""
    time = iteration_time(job, by_formula)
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
    for tp in _divisors(MACHINE_GPUS) if gpus > 0 else ():
        if gpus % tp or spec.heads % tp or spec.kv_heads % tp:
            continue
        for pp in _divisors(spec.layers):
            if (gpus // tp) % pp:
                continue
            for virtual in _divisors(spec.layers // pp) if pp > 1 else [1]:
                yield MeshSpec(tp=tp, pp=pp, dp=gpus // tp // pp, virtual=virtual)


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]
