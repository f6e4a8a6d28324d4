"""What a training step can be told: one class for all objectives; the objective's own beside it."""

from typing import Literal

from pydantic import Field

from flywright.settings import Settings
from flywright.spec import Ramp


class LoraSettings(Settings):
    """Low-rank adapters in place of the weights themselves (arXiv 2106.09685)."""

    rank: int = Field(default=16, gt=0)
    alpha: float = Field(default=32.0, gt=0, description="the update is scaled by alpha / rank")
    targets: list[str] = Field(
        default=["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"], min_length=1
    )


class TrainSettings(Settings):
    """One training step. Rates and counts are a step's; a step is one global batch."""

    learning_rate: float = Field(gt=0)
    schedule: Literal["constant", "cosine", "linear", "wsd", "steep"] = Field(
        default="constant", description="wsd: constant, then down; steep: falls fast from the start"
    )
    min_learning_rate: float = Field(default=0.0, ge=0)
    decay_share: float = Field(default=0.1, gt=0, le=1, description="wsd: the part that falls")
    warmup_steps: int = Field(default=10, ge=0)
    batch_size: int = Field(gt=0, description="samples in a global batch")
    batch_ramp: Ramp = Field(
        default=[], description="[samples consumed, batch size until then], before batch_size"
    )
    epochs: float = Field(default=1.0, gt=0)
    samples: int = Field(default=0, ge=0, description="samples to train on; 0 = epochs x dataset")
    micro_batch_tokens: int = Field(default=4096, gt=0)
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: for the matrices between the layers"
    )
    weight_decay: float = Field(default=0.1, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    clip: float = Field(default=1.0, gt=0)
    precision: Literal["fp32", "bf16"] = "bf16"
    lora: LoraSettings | None = Field(default=None, description="adapters; null: all weights")
    recompute: bool = Field(default=False, description="layers' activations again in backward")
    checkpoint_every_steps: int = Field(default=50, gt=0)
    keep_states: int = Field(default=2, gt=0, description="newest checkpoints that are kept")
    validation_share: float = Field(
        default=0.0, ge=0, lt=1, description="of samples: measured at checkpoints, best ones win"
    )
    log_to: list[Literal["tensorboard", "wandb"]] = Field(default=[], description="extra `log`")
    max_over_length_share: float = Field(default=0.1, ge=0, le=1)
