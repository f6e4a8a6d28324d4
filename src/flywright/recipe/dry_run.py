"""A dry run of pretraining on a recipe's mesh: `flywright run nemotron-4-340b --dry-run`.

One process after another believes itself the first, a middle and the last pipeline rank of all of
them: the real model, never materialised, is cut and sharded as training does it; one chunk of each
kind goes forward and backward on fake tensors; the schedule's own operations give the peak.
"""

import multiprocessing
import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed.pipelining._backward import stage_backward
from torch.distributed.tensor import DTensor

from flywright.data.batch import Batch, Sample, collate
from flywright.errors import UserError
from flywright.model import Decoder, attention, logprobs
from flywright.model.sharding import DECODER
from flywright.parallel import Ranks, apply_pipeline, build_mesh, compute_in, exchange, runnable
from flywright.plan import device
from flywright.plan.devices import GIB
from flywright.plan.measure import Live, Passes, fake_ranks, measure, replayed
from flywright.plan.memory import FIT, RUNTIME_BYTES
from flywright.plan.schedule import schedule_ops
from flywright.recipe.files_road import FilesSettings
from flywright.recipe.settings import RecipeSettings
from flywright.spec import MeshSpec, ModelSpec
from flywright.train.loop import prepare
from flywright.train.objectives import language_model
from flywright.train.optim import MasterOptimizer
from flywright.train.schedule import batch_size
from flywright.train.settings import TrainSettings

_PROCESSES = 8  # at most: each takes some 0.4 GB


@dataclass(frozen=True)
class Rank:
    """What one GPU holds at most in a step, in bytes, and how often it talks to others."""

    dp: int
    gpus: int
    pp_rank: int
    microbatches: int
    parameters: int  # that it computes with
    weights: int  # gathered over dp, in the dtype that is computed in
    gradients: int
    optimizer: int  # with its fp32 weights, shared out over dp
    activations: int  # what forwards keep for backwards
    momentary: int  # what the worst moment of a pass has besides
    buffers: int  # for what pipeline neighbours send, and what is sent until it is there
    runtime: int  # allowed for the device's context, NCCL and the allocator
    pp_sends: int
    tp_collectives: int
    dp_collectives: int

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by part; they add up to the peak."""
        names = "weights gradients optimizer activations momentary buffers runtime"
        return {name: getattr(self, name) for name in names.split()}

    @property
    def peak(self) -> int:
        """Bytes at most."""
        return sum(self.parts.values())

    def as_dict(self) -> dict[str, int]:
        """Everything."""
        return asdict(self) | {"peak": self.peak}


@dataclass(frozen=True)
class Job:
    """One phase: what is trained on which mesh, in how many micro-batches of one replica a step."""

    spec: ModelSpec
    mesh: MeshSpec
    train: TrainSettings
    window: int
    microbatches: int

    @property
    def zero(self) -> int:
        """What dp ranks share out: with a pipeline only what the optimizer holds."""
        return 1 if self.mesh.pp > 1 else self.mesh.zero

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in."""
        return torch.bfloat16 if self.train.precision == "bf16" else torch.float32


def dry_run(recipe: RecipeSettings | FilesSettings) -> tuple[list[Rank], str]:
    """Every kind of rank in every phase of the mesh; and what does not fit, "" where all does.

    Raises UserError for batches or shapes that the mesh cannot be given.
    """
    train = recipe.pretrain.train
    window = recipe.pretrain.window or recipe.model.context_length
    starts = sorted({0, *(until for until, _ in (*recipe.mesh.dp_ramp, *train.batch_ramp))})
    meshes = [(recipe.mesh.phase(start), batch_size(train, start)) for start in starts]
    walks = []
    for mesh, batch in {(mesh.dp, batch): (mesh, batch) for mesh, batch in meshes}.values():
        each = mesh.dp * max(1, train.micro_batch_tokens // window)
        if batch % each:
            raise UserError(f"batch {batch} does not divide by dp {mesh.dp} x its micro-batches")
        count = batch // each
        if mesh.pp > 1:
            count = runnable(count, mesh.pp, mesh.virtual)
        job = Job(recipe.model, mesh, train, window, count)
        walks += [(job, rank) for rank in sorted({0, mesh.pp // 2, mesh.pp - 1})]
    processes = min(_PROCESSES, len(walks), os.cpu_count() or 1)
    # each walk in a process of its own: torch remembers a process group's names
    with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1) as pool:
        ranks = pool.starmap(walk, walks, chunksize=1)
    return ranks, _fault(ranks, recipe.mesh.device)


def _fault(ranks: list[Rank], name: str) -> str:
    fullest = max(ranks, key=lambda rank: rank.peak)
    most = device(name).memory_gib
    if fullest.peak <= FIT * most * GIB:
        return ""
    part, size = max(fullest.parts.items(), key=lambda item: item[1])
    return (
        f"does not fit: pipeline rank {fullest.pp_rank} at dp {fullest.dp} needs "
        f"{fullest.peak / GIB:.1f} GiB of {name}'s {most:g}, {size / GIB:.1f} of it for {part}"
    )


def tables(ranks: list[Rank]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A title and rows for each phase; sizes in GiB."""
    for (dp, gpus, count), some in groupby(ranks, lambda r: (r.dp, r.gpus, r.microbatches)):
        found = [(f"pp rank {rank.pp_rank}", rank) for rank in some]
        rows: list[dict[str, Any]] = [
            {"": "parameters, billions"} | {n: r.parameters / 1e9 for n, r in found}
        ]
        for part in (*found[0][1].parts, "peak"):
            rows.append({"": f"{part}, GiB"} | {n: r.as_dict()[part] / GIB for n, r in found})
        for kind in ("pp_sends", "tp_collectives", "dp_collectives"):
            name = kind.replace("_", " ") + " a step"
            rows.append({"": name} | {n: r.as_dict()[kind] for n, r in found})
        yield f"dp {dp}: {gpus} ranks, {count} micro-batches each a step", rows


def walk(job: Job, pp_rank: int) -> Rank:
    """One pipeline rank, its first in dp and tp. In a process that has no process group."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of FSDP, about views
    mesh, spec = job.mesh, job.spec
    virtual = mesh.virtual if mesh.pp > 1 else 1
    ends = 0, mesh.pp * virtual - 1
    ids, mask = np.zeros(job.window, np.int64), np.arange(job.window) > 0
    samples = [Sample((ids,), (mask,))] * max(1, job.train.micro_batch_tokens // job.window)
    batch = collate(samples)
    shape = (1, len(batch.ids_N) // mesh.tp, spec.hidden_size)
    stream = torch.empty(shape, dtype=job.dtype, device="meta")
    with fake_ranks(mesh.ranks, pp_rank * mesh.dp * mesh.tp):
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        chunks, optimizer = _chunks(job, virtual, fake)
        numbers = [pp_rank + turn * mesh.pp for turn in range(virtual)]
        passes: dict[int, Passes] = {}
        kinds: dict[tuple[bool, bool, int], Passes] = {}
        for number, chunk in zip(numbers, chunks, strict=True):
            kind = number == ends[0], number == ends[1], len(chunk.model.layers)
            if kind not in kinds:
                kinds[kind] = _measure(chunk, fake, batch, stream, kind[:2], job.zero == 1)
            passes[number] = kinds[kind]
        whole = sum(_parameters(chunk, mesh.tp, False) for chunk in chunks)
        shard = sum(_parameters(chunk, mesh.tp, True) for chunk in chunks)
    ops = schedule_ops(mesh.pp, virtual, job.microbatches)[pp_rank]
    sends = sum(chunk < ends[1] if forward else chunk > 0 for forward, chunk, _ in ops)
    held = sends if virtual > 1 else 0  # torch waits for an interleaved step's sends at its end
    kept, most = replayed(ops, passes)
    gradients = 4 * (whole if job.zero == 1 else shard)
    # torch has a buffer for each micro-batch from the start
    received = sum((number > ends[0]) + (number < ends[1]) for number in numbers)
    of_kind = lambda kind: sum(  # noqa: E731
        one.step_collectives(kind, job.microbatches) for one in passes.values()
    )
    return Rank(
        dp=mesh.dp,
        gpus=mesh.ranks,
        pp_rank=pp_rank,
        microbatches=job.microbatches,
        parameters=whole,
        weights=sum(one.state for one in passes.values()) - gradients,
        gradients=gradients,
        optimizer=optimizer,
        activations=kept,
        momentary=most - kept,
        buffers=(job.microbatches * received + held) * stream.nbytes,
        runtime=int(RUNTIME_BYTES),
        pp_sends=sends,
        tp_collectives=of_kind("tp"),
        dp_collectives=of_kind("dp"),
    )


def _chunks(job: Job, virtual: int, fake: FakeTensorMode) -> tuple[list[Decoder], int]:
    """The rank's chunks as training has them, without bytes; and the bytes of what trains them."""
    with torch.device("meta"):
        model = Decoder(job.spec)
    mesh, policy = build_mesh(job.mesh), compute_in(job.dtype)
    parts = apply_pipeline(model, mesh, DECODER, virtual, policy, job.zero)
    chunks = [part for part in parts if isinstance(part, Decoder)]
    with fake:
        for chunk in chunks:
            chunk.to_empty(device="cpu")
        ranks = Ranks()
        ranks.mesh = mesh  # given at once it would meet the others
        state = MasterOptimizer(chunks, job.train, ranks).state()
    prepare(chunks, job.train, alone=False)
    return chunks, sum(_local(tensor).nbytes for tensor in state.values())


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _parameters(chunk: Decoder, tp: int, sharded: bool) -> int:
    """Parameters on this rank: of its tp share all, or what FSDP leaves of them."""
    count = 0
    for parameter in chunk.parameters():
        assert isinstance(parameter, DTensor)
        split = tp if tp > 1 and parameter.placements[-1].is_shard() else 1
        count += parameter.to_local().numel() if sharded else parameter.numel() // split
    return count


def _measure(
    chunk: Decoder,
    fake: FakeTensorMode,
    batch: Batch,
    stream: Tensor,
    ends: tuple[bool, bool],
    once: bool,
) -> Passes:
    """One chunk's micro-batches; `ends`: whether it is the first, the last; `once`: ZeRO 1."""
    first, last = ends
    objective = language_model()
    ids_1N, positions_1N = batch.ids_N[None], batch.positions_N[None]
    chunk.forward = partial(Decoder.hidden, chunk)  # so that FSDP's hooks stand around it

    def micro_batch(is_last: bool) -> Iterator[None]:
        exchange(chunk, is_last or not once)
        x = ids_1N if first else torch.empty_like(stream, device="cpu").requires_grad_()
        slope = None if last else torch.empty_like(stream, device="cpu")
        yield
        with unset_fake_temporarily():  # indices have values
            attend = attention.packed(batch.lengths)
        ends_in = output = chunk(x, positions_1N, attend)  # a stage holds its output, too
        if last:
            ends_in, _ = objective.loss(objective.outputs(chunk, batch, output[0]), batch)
        yield
        stage_backward((ends_in,), (slope,), (x,))

    fused = patch.object(attention, "BLOCKED_TOKENS", 0)  # as an accelerator has it
    with fused, patch.object(logprobs, "_hits", _every_row), fake, Live() as live:
        for parameter in chunk.parameters():
            live.see(_local(parameter).untyped_storage())  # not new where it is viewed
        return measure(live, micro_batch)


def _every_row(targets_R: Tensor, _columns: slice) -> tuple[Tensor, Tensor]:
    """As if each tile of the head held every row's target: how many do, only values tell."""
    return torch.arange(len(targets_R)), torch.zeros_like(targets_R)
