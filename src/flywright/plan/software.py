"""What software makes of the hardware: a few named constants, one profile for a family of systems.

The profiles are in software.toml. Efficiencies are shares of what the device lets matmuls reach, or
of its dense peak for attention; `exposed` shares are communication that computation does not hide;
`scale_loss` is what each doubling of the machines adds to an iteration.
"""

from dataclasses import dataclass
from pathlib import Path

from flywright.settings import read_toml


@dataclass(frozen=True)
class Software:
    """Named constants of one family of training systems."""

    name: str
    sources: list[str]  # how the source of a published row of this family begins
    matmul_bf16: float  # share of the reachable bf16 FLOP/s in a large matmul
    attention: float  # share of the bf16 peak in the attention product
    tp_exposed: float
    dp_exposed: float
    layer_seconds: float  # launches, norms' reductions, host time: a layer's fixed forward cost
    scale_loss: float
    matmul_fp8: float = 0.0  # as matmul_bf16, in fp8
    flash: bool = True  # attention computes only the causal half and stores no scores
    sequence_parallel: bool = True
    fully_sharded: bool = False  # parameters gathered for every layer, as FSDP does
    gradient_bytes: int = 4
    activations_kept: float = 1.0  # less where the software recomputes some ops of its own accord


SOFTWARE = {
    name: Software(name, **row)
    for name, row in read_toml(Path(__file__).with_name("software.toml")).items()
}
NEMO = SOFTWARE["nemo-2025"]  # also for systems without a profile


def software_of(source: str) -> Software:
    """The profile of the software behind a published row."""
    profiles = SOFTWARE.values()
    return next((soft for soft in profiles if source.startswith(tuple(soft.sources))), NEMO)
