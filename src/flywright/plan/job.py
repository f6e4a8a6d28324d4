"""One training job as the planner sees it: what is trained, where, and cut how."""

from dataclasses import dataclass
from typing import Literal

from flywright.errors import UserError
from flywright.plan.software import NEMO, Software
from flywright.spec import DeviceSpec, MeshSpec, ModelSpec

Precision = Literal["bf16", "fp8"]
Recompute = Literal["none", "selective", "full"]


@dataclass(frozen=True)
class Job:
    """`batch` and `micro_batch` count sequences; `context` = ranks that share one sequence (cp)."""

    spec: ModelSpec
    device: DeviceSpec
    mesh: MeshSpec
    batch: int
    micro_batch: int = 1
    sequence: int = 4096
    context: int = 1
    precision: Precision = "bf16"
    recompute: Recompute = "none"
    software: Software = NEMO

    def __post_init__(self) -> None:
        if self.precision == "fp8" and not self.device.fp8_flops:
            raise UserError(f"{self.device.name} has no fp8")

    @property
    def gpus(self) -> int:
        return self.mesh.ranks * self.context

    @property
    def microbatches(self) -> int:
        """Micro-batches that one data-parallel replica runs in an iteration."""
        count, rest = divmod(self.batch, self.mesh.dp * self.micro_batch)
        if rest or not count:
            raise UserError(
                f"batch {self.batch} does not divide by dp {self.mesh.dp} x "
                f"micro-batch {self.micro_batch}"
            )
        return count

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch on one rank, before sequence parallelism."""
        return self.micro_batch * self.sequence // self.context

    @property
    def gathers(self) -> bool:
        """Whether weights are gathered for every micro-batch: fully sharded, and no pipeline."""
        return self.software.fully_sharded and self.mesh.pp == 1

    @property
    def peak_flops(self) -> float:
        """Dense FLOP/s of one GPU at the job's precision."""
        return self.device.fp8_flops if self.precision == "fp8" else self.device.bf16_flops

    @property
    def chunk_layers(self) -> list[int]:
        """Layers in each pipeline chunk, the remainder dealt to the first ones."""
        chunks = self.mesh.pp * self.mesh.virtual if self.mesh.pp > 1 else 1
        each, extra = divmod(self.spec.layers, chunks)
        return [each + (number < extra) for number in range(chunks)]


def rank_parameters(job: Job, stage: int) -> float:
    """Parameters on a rank of a pipeline stage: its layers, and what the ends hold besides."""
    spec, last = job.spec, job.mesh.pp - 1
    ends = (stage == 0) + (stage == last)
    layers = sum(job.chunk_layers[stage :: job.mesh.pp]) * spec.layer_parameters
    matrices = 1 if spec.tied_embeddings and last == 0 else ends  # each end of a cut holds a whole
    return (layers + matrices * spec.vocab_size * spec.hidden_size) / job.mesh.tp


def fullest_parameters(job: Job) -> float:
    return max(rank_parameters(job, stage) for stage in range(job.mesh.pp))
