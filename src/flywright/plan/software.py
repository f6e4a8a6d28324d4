"""What software makes of the hardware: a few named constants, one profile for a family of systems.

The profiles are in software.toml. Efficiencies are shares of what the device lets matmuls reach;
`exposed` shares are communication that computation does not hide; `scale_loss` is what each
doubling of the machines adds to an iteration. `benchmarks/planner.py --fit` fits the constants.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from flywright.errors import UserError
from flywright.settings import read_toml


@dataclass(frozen=True)
class Software:
    """Named constants of one family of training systems."""

    name: str
    sources: list[str]  # parts of the source of a published row of this family, in small letters
    matmul_bf16: float  # share of the reachable bf16 FLOP/s in a large matmul
    matmul_fp8: float  # the same in fp8
    tp_exposed: float
    dp_exposed: float
    layer_seconds: float  # launches, small kernels, host time: a layer's fixed forward cost
    scale_loss: float
    attention: Literal["unfused", "flash1", "flash2", "flash3"] = "flash3"  # generation of kernels
    fused: bool = True  # norms, activations and the loss are single kernels
    sequence_parallel: bool = True
    fully_sharded: bool = False  # parameters gathered for every layer, as FSDP does
    all_rails: bool = True  # a machine's network cards all serve one collective
    gradient_bytes: int = 4
    logit_bytes: int = 6  # per logit: bf16 and fp32, and their gradients where they are separate
    activations_kept: float = 1.0  # with selective recomputation, of what is kept without
    torch_pipeline: bool = False  # buffers for all micro-batches; as many of these as stages

    @property
    def flash(self) -> bool:
        """Attention computes only the causal half and stores no scores."""
        return self.attention != "unfused"


def _profiles() -> dict[str, Software]:
    """All of software.toml; `like` = the profile whose values a row's own ones replace."""
    rows = read_toml(Path(__file__).with_name("software.toml"))
    whole = {name: {**rows.get(row.pop("like", ""), {}), **row} for name, row in rows.items()}
    return {name: Software(name, **row) for name, row in whole.items()}


SOFTWARE = _profiles()
NEMO = SOFTWARE["nemo-2025"]  # also for systems without a profile


def software(name: str) -> Software:
    """A profile by name. Raises UserError that lists the names."""
    if name not in SOFTWARE:
        raise UserError(f"no profile {name!r}; known: {', '.join(SOFTWARE)}")
    return SOFTWARE[name]


def software_of(source: str, device: str, sharded: bool) -> Software:
    """The profile of the software behind a published row.

    Of an unknown source that of the hardware's time; `sharded`: neither tensors nor layers are
    cut, but the model is trained on many GPUs.
    """
    said = source.lower()
    for profile in SOFTWARE.values():
        if any(part in said for part in profile.sources):
            return profile
    if device.startswith("A100"):
        return SOFTWARE["llm-foundry" if sharded else "megatron-2022"]
    return SOFTWARE["torchtitan-2024"] if sharded else NEMO


def fully_sharded(profile: Software, device: str) -> Software:
    """A profile with sharded weights; on A100, of whose time they were new, ZeRO-3's."""
    return SOFTWARE["zero-3-2021"] if "A100" in device else replace(profile, fully_sharded=True)
