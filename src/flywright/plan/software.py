"""What software makes of the hardware: a few named constants, one profile for a family of systems.

Profiles are fitted to published rows of their family (`flywright plan check` shows how well), never
to one row; for other devices than the family ran on they are extrapolated. Efficiencies are shares
of what the device lets matmuls reach, or of its dense peak for attention; `exposed` shares are
communication that computation does not hide; `scale_loss` is what each doubling of the machines
adds to an iteration.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Software:
    """Named constants of one family of training systems."""

    name: str
    matmul_bf16: float  # share of the reachable bf16 FLOP/s in a large matmul
    matmul_fp8: float  # the same in fp8
    attention: float  # share of the bf16 peak in the attention product
    tp_exposed: float
    dp_exposed: float
    layer_seconds: float  # launches, norms' reductions, host time: a layer's fixed forward cost
    scale_loss: float
    flash: bool = True  # attention computes only the causal half and stores no scores
    sequence_parallel: bool = True
    fully_sharded: bool = False  # parameters gathered for every layer, as FSDP does
    gradient_bytes: int = 4
    activations_kept: float = 1.0  # less where the software recomputes some ops of its own accord


# Columns: matmul bf16, matmul fp8, attention, tp exposed, dp exposed, layer seconds, scale loss.
NEMO = Software("nemo-2025", 0.78, 0.67, 0.60, 0.06, 0.80, 3.6e-4, 0.002, gradient_bytes=2)
PAPER = Software("nemotron-4-reports", 0.77, 0.66, 0.51, 0.47, 0.19, 1.7e-4, 0.017)
MEGATRON = Software(
    "megatron-2021", 0.67, 0.0, 0.21, 0.40, 0.13, 2.3e-4, 0.002, flash=False,
    sequence_parallel=False,
)  # fmt: skip
DEEPSPEED = Software(
    "megatron-deepspeed", 0.52, 0.0, 0.23, 0.05, 0.92, 5.6e-4, 0.0006, flash=False,
    sequence_parallel=False,
)  # fmt: skip
MEGATRON_SP = Software("megatron-2022", 0.76, 0.0, 0.21, 0.98, 0.85, 5.5e-4, 0.0008, flash=False)
FSDP = Software("llm-foundry", 0.85, 0.56, 0.21, 0.6, 0.6, 5.8e-4, 0.019, fully_sharded=True)
TITAN = Software(
    "torchtitan-2024", 0.47, 0.34, 0.29, 0.04, 0.04, 6.0e-4, 0.003, fully_sharded=True,
    activations_kept=0.7,
)  # fmt: skip

SOFTWARE = {
    each.name: each for each in (NEMO, PAPER, MEGATRON, DEEPSPEED, MEGATRON_SP, FSDP, TITAN)
}
