"""Iteration time: work of each chunk by roofline, the schedule replayed, then the exchange over dp.

MFU is SPEC 3.4's (attention in full, no recompute counted); the causal one is printed beside it.
Time of a matmul = FLOPs / (peak x efficiency); of the rest = bytes / bandwidth. Context parallel
exchange and pipeline sends are counted as hidden, save for the delay of a hop.
"""

from dataclasses import dataclass
from math import log2

import numpy as np

from flywright.plan.job import Job, fullest_parameters
from flywright.plan.schedule import Seconds, closed_form, replay

# Hardware constants: shares of published bandwidth that transfers and memory passes reach.
LINK_EFFICIENCY = 0.75
NETWORK_EFFICIENCY = 0.75
MEMORY_EFFICIENCY = 0.8
HOP_LATENCY_SECONDS = 20e-6
# Share of the dense bf16 peak in causal attention, forward and backward, head dimension 128: on
# A100, and on what came later (measured by Dao 2023 and Shah et al. 2024).
ATTENTION = {"flash1": (0.30, 0.18), "flash2": (0.55, 0.33), "flash3": (0.55, 0.52)}
SCORE_BYTES = 10  # reads and writes of one attention score by unfused kernels, forward
# Passes over the stream and over the MLP's width in a layer's forward, by fused kernels or not.
STREAM_PASSES = {True: 10, False: 20}
WIDTH_PASSES = {True: 2, False: 4}

Ways = tuple[float, float]  # seconds of one micro-batch's forward, and of its backward


@dataclass(frozen=True)
class Time:
    """An iteration: its seconds, and what follows from them."""

    seconds: float
    mfu: float
    mfu_causal: float
    bubble: float
    in_flight: tuple[int, ...]  # per pipeline rank, chunk activations held at most
    messages: int
    exchange_seconds: float  # gradients and parameters over dp, as far as nothing hides it


def mfu(job: Job, seconds: float, causal: bool = False) -> float:
    """Model FLOP/s over peak FLOP/s (SPEC 3.4)."""
    flops = job.spec.flops_per_token(job.sequence, causal) * job.batch * job.sequence
    return flops / (job.gpus * job.peak_flops * seconds)


def iteration_time(job: Job, by_formula: bool = False) -> Time:
    """Foretell one iteration. Raises UserError where batch or schedule do not fit the mesh.

    `by_formula` takes the schedule's closed form instead of its replay: for ranking many layouts.
    """
    run = (closed_form if by_formula else replay)(*schedule_arguments(job))
    machines = max(1.0, job.gpus / job.device.machine_gpus)
    slowing = 1 + job.software.scale_loss * log2(machines)
    exchange = _exchange_seconds(job, run.seconds)
    total = (run.seconds + exchange + _optimizer_seconds(job)) * slowing
    shares = mfu(job, total), mfu(job, total, causal=True)
    return Time(total, *shares, run.bubble, run.in_flight, run.messages, exchange)


def schedule_arguments(job: Job) -> tuple[int, int, int, Seconds, Seconds, float]:
    """What `schedule.replay` takes: pp, virtual, micro-batches, the chunks' times, and a hop's."""
    chunks = np.outer(job.chunk_layers, _layer(job))
    chunks[-1] += _head(job)
    forward, backward = (tuple(way) for way in chunks.T.tolist())
    sent = 2 * job.tokens * job.spec.hidden_size / job.mesh.tp
    hop = HOP_LATENCY_SECONDS + sent / (job.device.network_bandwidth * NETWORK_EFFICIENCY)
    virtual = job.mesh.virtual if job.mesh.pp > 1 else 1
    return job.mesh.pp, virtual, job.microbatches, forward, backward, hop


def _matmul_seconds(job: Job, flops: float, fp8: bool = False) -> float:
    peak = job.device.fp8_flops if fp8 else job.device.bf16_flops
    efficiency = job.software.matmul_fp8 if fp8 else job.software.matmul_bf16
    return flops / (peak * job.device.reachable * efficiency)


def _memory_seconds(job: Job, size: float) -> float:
    return size / (job.device.memory_bandwidth * MEMORY_EFFICIENCY)


def _layer(job: Job) -> Ways:
    spec, soft, tp = job.spec, job.software, job.mesh.tp
    dense = 2 * job.tokens * (spec.attention_parameters + spec.mlp_parameters) / tp
    matmul = _matmul_seconds(job, dense, job.precision == "fp8")
    attention = _attention_seconds(job)
    pointwise = _memory_seconds(job, _pointwise_bytes(job))
    sent = _tp_seconds(job) * soft.tp_exposed
    forward = matmul + attention + pointwise + sent + soft.layer_seconds
    # flash attention's backward computes five products for two; an unfused one twice the forward,
    # and once more where only attention is recomputed
    extra = 2.5 if soft.flash else 3.0 if job.recompute == "selective" else 2.0
    backward = 2 * (matmul + pointwise + soft.layer_seconds) + extra * attention + 1.5 * sent
    if job.recompute == "full":
        backward += forward
    return forward, backward


def _attention_seconds(job: Job) -> float:
    """Scores and their product with the values; unfused kernels write the scores out."""
    spec, soft, device = job.spec, job.software, job.device
    scores = job.tokens * job.sequence * spec.heads / job.mesh.tp
    flops = 4 * scores * spec.head_dim
    if not soft.flash:
        return _matmul_seconds(job, flops) + _memory_seconds(job, SCORE_BYTES * scores)
    share = ATTENTION[soft.attention][not device.name.startswith("A100")]
    return flops / 2 / (device.bf16_flops * share)


def _pointwise_bytes(job: Job) -> float:
    """Reads and writes of norms, residuals and the activation in a forward pass, 2 bytes each; in
    fp8 a fused kernel's again, for the casts."""
    spec, tp, soft = job.spec, job.mesh.tp, job.software
    stream = spec.hidden_size / (tp if soft.sequence_parallel else 1)
    width = spec.ffn_size / tp * (1.5 if spec.mlp == "swiglu" else 1)
    kinds = [soft.fused] + [True] * (job.precision == "fp8")
    passes = sum(STREAM_PASSES[kind] * stream + WIDTH_PASSES[kind] * width for kind in kinds)
    return 2 * job.tokens * passes


def _tp_seconds(job: Job) -> float:
    """All-gather and reduce-scatter (or one all-reduce), twice a layer."""
    tp, machine = job.mesh.tp, job.device.machine_gpus
    size = 4 * 2 * job.tokens * job.spec.hidden_size * (tp - 1) / tp
    return size / _bandwidth(job, tp <= machine, cards=machine)


def _head(job: Job) -> Ways:
    """Logits, always in bf16, and the loss in fp32."""
    spec = job.spec
    logits = job.tokens * spec.vocab_size / job.mesh.tp
    matmul = _matmul_seconds(job, 2 * logits * spec.hidden_size)
    loss = _memory_seconds(job, (8 if job.software.fused else 16) * logits)
    return matmul + loss, 2 * matmul + loss


def _bandwidth(job: Job, inside: bool, cards: int) -> float:
    """What one GPU gets of the way between ranks: the link inside a machine, or at most that of the
    network cards that serve them there."""
    link = job.device.link_bandwidth * LINK_EFFICIENCY
    rails = max(1, cards) if job.software.all_rails else 1
    across = rails * job.device.network_bandwidth * NETWORK_EFFICIENCY
    return link if inside else min(link, across)


def _exchange_seconds(job: Job, work_seconds: float) -> float:
    """What gradients out and parameters back over dp add to an iteration.

    Under FSDP they go for every micro-batch, beside its work as long as that takes; what cannot
    be beside it is added whole, and of the rest the exposed share.
    """
    ranks, soft = job.mesh.dp * job.context, job.software
    if ranks == 1:
        return 0.0
    times = job.microbatches if job.gathers else 1
    each = (2 if job.gathers else 0) + 2 + soft.gradient_bytes
    size = fullest_parameters(job) * each * (ranks - 1) / ranks
    tp, machine = job.mesh.tp, job.device.machine_gpus
    inside = tp * ranks <= machine and job.mesh.pp == 1
    took = times * size / _bandwidth(job, inside, cards=min(ranks, machine // tp))
    if not job.gathers:
        return soft.dp_exposed * took
    return max(0.0, took - work_seconds) + soft.dp_exposed * min(took, work_seconds)


def _optimizer_seconds(job: Job) -> float:
    """Adam's pass over its shard: fp32 weight, two moments, gradient, read and written."""
    shard = fullest_parameters(job) / (job.mesh.dp * job.context)
    return _memory_seconds(job, 30 * shard)
