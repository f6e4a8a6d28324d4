"""What a training step can be told: one class for all objectives; the objective's own beside it."""

from typing import Literal

from pydantic import Field

from flywright.settings import Settings


class TrainSettings(Settings):
    """One training step. Rates and counts are a step's; a step is one global batch."""

    learning_rate: float = Field(gt=0)
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    min_learning_rate: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=10, ge=0)
    batch_size: int = Field(gt=0, description="samples in a global batch")
    batch_ramp: list[tuple[int, int]] = Field(
        default=[], description="[samples consumed, batch size] from there on, before batch_size"
    )
    epochs: float = Field(default=1.0, gt=0)
    samples: int = Field(default=0, ge=0, description="samples to train on; 0 = epochs x dataset")
    micro_batch_tokens: int = Field(default=4096, gt=0)
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: for the matrices between the layers"
    )
    weight_decay: float = Field(default=0.1, ge=0)
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = Field(default=1.0, gt=0)
    precision: Literal["fp32", "bf16"] = "bf16"
    checkpoint_every_steps: int = Field(default=50, gt=0)
    max_over_length_share: float = Field(default=0.1, ge=0, le=1)
