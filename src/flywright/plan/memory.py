"""Bytes on the fullest GPU: weights, gradients, optimizer and activations by part.

Weights bf16, gradients fp32 unless the software reduces in bf16, Adam's fp32 weight and two moments
(12 bytes a parameter) sharded over dp. Activations follow Korthikanti et al. 2022 with this
family's deviations: no dropout masks, squared ReLU keeps its input and output, few KV heads.
"""

from dataclasses import dataclass

from flywright.plan.devices import GIB
from flywright.plan.job import Job, rank_parameters

RUNTIME_BYTES = 3 * GIB  # CUDA context, NCCL buffers, allocator's slack
GATHERED_LAYERS = 2  # fully sharded weights are whole for the layer at work and the next one
FIT = 0.94  # of a device's memory may be planned for


@dataclass(frozen=True)
class Memory:
    """Bytes by part on the fullest rank."""

    weights: float
    gradients: float
    optimizer: float
    buffers: float  # what sharding gathers for the layer at work; what a pipeline receives
    activations_attention: float
    activations_mlp: float
    activations_norm: float
    logits: float
    runtime: float

    @property
    def total(self) -> float:
        return sum(vars(self).values())

    @property
    def gib(self) -> float:
        return self.total / GIB

    def fits(self, memory_gib: float) -> bool:
        """Whether it fits with some room left."""
        return self.gib <= FIT * memory_gib

    def parts_gib(self) -> dict[str, float]:
        return {part: size / GIB for part, size in vars(self).items()}


def memory(job: Job, in_flight: tuple[int, ...]) -> Memory:
    """Bytes by part on the fullest rank; `in_flight[stage]` = chunk activations held at once."""
    stages = (_stage_memory(job, stage, held) for stage, held in enumerate(in_flight))
    return max(stages, key=lambda each: each.total)


def _stage_memory(job: Job, stage: int, in_flight: int) -> Memory:
    parameters, soft = rank_parameters(job, stage), job.software
    ranks = job.mesh.dp * job.context
    attention, mlp, norm = layer_activations(job)
    layers = in_flight * max(job.chunk_layers)
    kept_input = 0.0
    if job.recompute == "full":  # inputs of all layers, insides of the one at work
        stream = 2 * job.tokens * job.spec.hidden_size / _stream_ranks(job)
        kept_input, layers = stream * layers, 1
    elif job.recompute == "selective":
        layers *= soft.activations_kept
    is_last = stage == job.mesh.pp - 1
    logits = soft.logit_bytes * job.tokens * job.spec.vocab_size / job.mesh.tp
    return Memory(
        weights=0.0 if job.gathers else 2 * parameters,
        gradients=soft.gradient_bytes * parameters / (ranks if job.gathers else 1),
        optimizer=12 * parameters / ranks,
        buffers=_buffers(job),
        activations_attention=attention * layers,
        activations_mlp=mlp * layers,
        activations_norm=norm * layers + kept_input,
        logits=logits if is_last else 0.0,
        runtime=RUNTIME_BYTES,
    )


def _buffers(job: Job) -> float:
    """Under full sharding, whole weights and gradients of some layers and a matrix of the ends, or
    in a pipeline the shard of the gradients beside the whole; under tensor parallelism the stream
    before a column-parallel matmul and its gradient; in torch's pipeline what every chunk receives
    of every micro-batch, both ways."""
    spec, soft, mesh = job.spec, job.software, job.mesh
    stream = 2 * job.tokens * spec.hidden_size
    size = 2 * stream if mesh.tp > 1 else 0.0
    if soft.torch_pipeline and mesh.pp > 1:
        size += 2 * job.microbatches * mesh.virtual * stream / _stream_ranks(job)
    if job.gathers:
        whole = GATHERED_LAYERS * spec.layer_parameters + spec.vocab_size * spec.hidden_size
        size += (2 + soft.gradient_bytes) * whole / mesh.tp
    elif soft.fully_sharded:
        size += soft.gradient_bytes * rank_parameters(job, 0) / (mesh.dp * job.context)
    return size


def _stream_ranks(job: Job) -> int:
    return job.mesh.tp if job.software.sequence_parallel else 1


def layer_activations(job: Job) -> tuple[float, float, float]:
    """Bytes that one layer keeps of one micro-batch: attention, MLP, norms."""
    spec, tp, tokens = job.spec, job.mesh.tp, job.tokens
    heads = (2 * spec.heads + 2 * spec.kv_heads) * spec.head_dim
    attention = 2 * tokens * heads / tp
    if not job.software.flash and job.recompute == "none":  # softmax, its dropout and their mask
        attention += 5 * tokens * job.sequence * spec.heads / tp
    kept = 4 if spec.mlp == "swiglu" else 2  # gate, up, silu(gate), product; up, its square
    mlp = 2 * tokens * kept * spec.ffn_size / tp
    norm = 2 * tokens * 4 * spec.hidden_size / _stream_ranks(job)
    return attention, mlp, norm
