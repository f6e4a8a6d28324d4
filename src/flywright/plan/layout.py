"""Search the layouts that fit a model on a cluster, fastest first.

best, *others = search(Job(preset("nemotron-4-340b"), device("H100"), MeshSpec(), 2304), 6144)
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from flywright.errors import UserError
from flywright.plan.devices import MACHINE_GPUS
from flywright.plan.job import Job, Recompute
from flywright.plan.memory import FIT, Memory, memory
from flywright.plan.time import Time, iteration_time
from flywright.spec import MeshSpec, ModelSpec

MICRO_BATCHES = (1, 2, 4, 8)
_AXES = ("tp", "pp", "virtual", "cp", "micro", "dp")  # of a given mesh
REPLAYED = 12  # candidates whose schedule is replayed op by op


@dataclass(frozen=True)
class Layout:
    job: Job
    time: Time
    memory: Memory

    def row(self, tokens: float = 0.0) -> dict[str, Any]:
        """For tables and JSON; memory in GiB, times in seconds. With `tokens` to train on, the
        days and GPU-hours that they take."""
        job, mesh, time = self.job, self.job.mesh, vars(self.time).copy()
        del time["in_flight"]
        row = {name: getattr(mesh, name) for name in ("tp", "pp", "virtual", "dp")}
        row |= {name: getattr(job, name) for name in ("context", "micro_batch", "recompute")}
        row |= time | {"message_bytes": 2 * job.tokens * job.spec.hidden_size // mesh.tp}
        row |= {"memory_gib": self.memory.gib, "memory": self.memory.parts_gib()}
        row |= {"fits": self.memory.fits(job.device.memory_gib)}
        days = tokens / (job.batch * job.sequence) * self.time.seconds / 86_400
        return row | ({"days": days, "gpu_hours": days * 24 * job.gpus} if tokens else {})


def search(
    base: Job, gpus: int, recompute: Recompute | None = None, limit: int = 10
) -> list[Layout]:
    """Layouts of a job that fit so many GPUs, by iteration time; its own mesh does not count.

    `recompute` None: whichever is best. Raises UserError where none fits, saying what the least
    memory hungry one would need.
    """
    quick = [lay_out(job, by_formula=True) for job in _candidates(base, gpus, recompute)]
    if not quick:
        raise UserError(f"no mesh of {gpus} GPUs divides batch {base.batch} and the model")
    fitting = [each for each in quick if each.memory.fits(base.device.memory_gib)]
    fitting.sort(key=lambda each: each.time.seconds)
    exact = [lay_out(each.job) for each in fitting[:REPLAYED]]
    exact = [each for each in exact if each.memory.fits(base.device.memory_gib)]
    if not exact:
        least = min(quick, key=lambda each: each.memory.total)
        raise UserError(
            f"nothing fits {gpus} x {base.device.name}: the smallest layout needs "
            f"{least.memory.gib:.0f} GiB a GPU, where {FIT:.0%} of {base.device.memory_gib:g} can "
            f"be planned for; take more GPUs"
        )
    return sorted(exact, key=lambda each: each.time.seconds)[:limit]


def given(base: Job, mesh: str, gpus: int | None) -> Job:
    """The job on a mesh such as `tp=8,pp=12,virtual=8,dp=64,micro=1`.

    dp may be left to the number of GPUs. Raises UserError for what does not fit together.
    """
    counts: dict[str, int] = {}
    for pair in mesh.split(","):
        name, _, count = (part.strip() for part in pair.partition("="))
        if name not in _AXES or not count.isdigit() or not int(count):
            raise UserError(f"mesh: {pair!r} is not {', '.join(_AXES)} = a number")
        if name in counts:
            raise UserError(f"mesh: {name} is given twice")
        counts[name] = int(count)
    tp, pp, virtual, context, micro = (counts.get(name, 1) for name in _AXES[:-1])
    inner = tp * pp * context
    dp = counts.get("dp", max(1, (gpus or inner) // inner))
    if gpus and inner * dp != gpus:
        raise UserError(f"mesh: {mesh} takes {inner * dp} GPUs, not {gpus}")
    spec = base.spec
    if pp * virtual > spec.layers or spec.heads % tp or spec.kv_heads % tp:
        heads = f"{spec.heads} heads ({spec.kv_heads} of keys)"
        raise UserError(f"mesh: {spec.layers} layers and {heads} do not give {mesh} parts")
    if base.sequence % context:
        raise UserError(f"mesh: {base.sequence} tokens of a sequence have no {context} equal parts")
    shape = MeshSpec(tp=tp, pp=pp, virtual=virtual, dp=dp)
    job = replace(base, mesh=shape, context=context, micro_batch=micro)
    _ = job.microbatches  # raises where the batch does not divide
    return job


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


def _candidates(base: Job, gpus: int, recompute: Recompute | None) -> Iterator[Job]:
    tried: list[Recompute] = [recompute] if recompute else ["none", "full"]
    if not recompute and (base.software.activations_kept < 1 or not base.software.flash):
        tried.append("selective")
    for mesh in _meshes(base.spec, gpus):
        for micro_batch in MICRO_BATCHES:
            each, rest = divmod(base.batch, mesh.dp * micro_batch)
            interleaves = mesh.virtual == 1 or each % mesh.pp == 0
            if rest == 0 and each >= mesh.pp and interleaves:
                job = replace(base, mesh=mesh, micro_batch=micro_batch)
                yield from (replace(job, recompute=kind) for kind in tried)


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
