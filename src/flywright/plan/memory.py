"""Bytes on the fullest GPU: weights, gradients, optimizer and activations by part.

Weights bf16, gradients fp32 unless the software reduces in bf16, Adam's fp32 weight and two moments
(12 bytes a parameter) sharded over dp. Activations follow Korthikanti et al. 2022 with this
family's deviations: no dropout masks, squared ReLU keeps its input and output, few KV heads.
"""

from dataclasses import asdict, dataclass

from flywright.plan.devices import GIB
from flywright.plan.job import Job, rank_parameters

RUNTIME_BYTES = 3 * GIB  # CUDA context, NCCL buffers, allocator's slack


@dataclass(frozen=True)
class Memory:
    """Bytes by part on the fullest rank."""

    weights: float
    gradients: float
    optimizer: float
    activations_attention: float
    activations_mlp: float
    activations_norm: float
    logits: float
    runtime: float

    @property
    def total(self) -> float:
        """All parts."""
        return sum(asdict(self).values())

    @property
    def gib(self) -> float:
        """Total in GiB."""
        return self.total / GIB

    def fits(self, memory_gib: float) -> bool:
        """Whether it fits with some room left."""
        return self.gib <= 0.94 * memory_gib


def memory(job: Job, in_flight: tuple[int, ...]) -> Memory:
    """Bytes by part on the fullest rank; `in_flight[stage]` = chunk activations held at once."""
    stages = (_stage_memory(job, stage, held) for stage, held in enumerate(in_flight))
    return max(stages, key=lambda each: each.total)


def _stage_memory(job: Job, stage: int, in_flight: int) -> Memory:
    parameters, soft = rank_parameters(job, stage), job.software
    ranks = job.mesh.dp * job.context
    # in a pipeline FSDP keeps weights and gradients whole between micro-batches
    held = ranks if soft.fully_sharded and job.mesh.pp == 1 else 1
    layers = in_flight * max(job.chunk_layers) * soft.activations_kept
    attention, mlp, norm = _layer_activations(job)
    kept_input = 0.0
    if job.recompute == "full":  # inputs of all layers, insides of the one at work
        stream = 2 * job.tokens * job.spec.hidden_size / _stream_ranks(job)
        kept_input, layers = stream * in_flight * max(job.chunk_layers), 1
    is_last = stage == job.mesh.pp - 1
    return Memory(
        weights=2 * parameters / held,
        gradients=soft.gradient_bytes * parameters / held,
        optimizer=12 * parameters / ranks,
        activations_attention=attention * layers,
        activations_mlp=mlp * layers,
        activations_norm=norm * layers + kept_input,
        logits=6 * job.tokens * job.spec.vocab_size / job.mesh.tp if is_last else 0.0,
        runtime=RUNTIME_BYTES,
    )


def _stream_ranks(job: Job) -> int:
    return job.mesh.tp if job.software.sequence_parallel else 1


def _layer_activations(job: Job) -> tuple[float, float, float]:
    """Bytes that one layer keeps of one micro-batch: attention, MLP, norms."""
    spec, tp, tokens = job.spec, job.mesh.tp, job.tokens
    heads = (2 * spec.heads + 2 * spec.kv_heads) * spec.head_dim
    attention = 2 * tokens * heads / tp
    if not job.software.flash and job.recompute == "none":
        attention += 4 * tokens * spec.heads / tp  # softmax statistics; scores are recomputed
    kept = 4 if spec.mlp == "swiglu" else 2  # gate, up, silu(gate), product; up, its square
    mlp = 2 * tokens * kept * spec.ffn_size / tp
    norm = 2 * tokens * 4 * spec.hidden_size / _stream_ranks(job)
    return attention, mlp, norm
