"""Models, meshes and devices by their numbers, with what follows from the numbers.

ModelSpec knows its parameters, FLOPs a token and KV-cache bytes (SPEC 1.2, 3.4), so that training,
the planner and the report count alike. Presets by name (models.toml):
`preset("nemotron-4-340b")`.
"""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from flywright.errors import UserError
from flywright.settings import Settings, read_toml


class RotaryScaling(Settings):
    """How rotary frequencies are stretched for contexts longer than a base was trained on.

    `linear` divides all; `llama3` the slow ones, by a smooth step between two wavelengths; `yarn`
    by a ramp between two counts of turns, and sharpens attention (arXiv 2309.00071).
    """

    kind: Literal["linear", "llama3", "yarn"]
    factor: float = Field(gt=0)
    original_context: int = Field(default=8192, gt=0)
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None


class ModelSpec(Settings):
    """A decoder by its numbers. The defaults are a Nemotron's: LayerNorm1P, squared ReLU, GQA,
    partial rotary, untied embeddings; Llama, Mistral and Qwen are other numbers (model/families).
    """

    name: str = ""
    family: Literal["nemotron", "llama", "mistral", "qwen2", "qwen3"] = "nemotron"
    vocab_size: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    ffn_size: int = Field(gt=0)
    context_length: int = Field(default=4096, gt=0)
    rotary_fraction: float = Field(default=0.5, gt=0, le=1)
    rotary_base: float = 10000.0
    rotary_scaling: RotaryScaling | None = None
    norm: Literal["layernorm1p", "rmsnorm"] = "layernorm1p"
    norm_eps: float = 1e-5
    mlp: Literal["squared_relu", "swiglu"] = "squared_relu"
    qkv_bias: bool = False
    qk_norm: bool = Field(default=False, description="an RMSNorm on each query and key head")
    tied_embeddings: bool = False
    bos_id: int | None = 2
    eos_id: int | None = 3
    init_std: float = 0.02
    embedding_std: float = Field(default=0.0, ge=0, description="of the input; 0 = init_std")

    @model_validator(mode="after")
    def _heads_fit(self) -> "ModelSpec":
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if self.rotary_dim % 2:
            raise ValueError(f"rotary dimension {self.rotary_dim} must be even")
        return self

    @property
    def rotary_dim(self) -> int:
        """Channels of a head that are rotated."""
        return int(self.head_dim * self.rotary_fraction)

    @property
    def attention_parameters(self) -> int:
        """Weights of q, k, v and o in one layer, with biases and head norms where there are any."""
        qkv = (self.hidden_size + self.qkv_bias) * (self.heads + 2 * self.kv_heads) * self.head_dim
        output = self.heads * self.head_dim * self.hidden_size
        return qkv + output + 2 * self.head_dim * self.qk_norm

    @property
    def mlp_parameters(self) -> int:
        """Weights of one MLP: two matrices, or three with a gate."""
        return (3 if self.mlp == "swiglu" else 2) * self.hidden_size * self.ffn_size

    @property
    def norm_parameters(self) -> int:
        """One norm of the stream: a weight, and LayerNorm1P's bias."""
        return (1 if self.norm == "rmsnorm" else 2) * self.hidden_size

    @property
    def layer_parameters(self) -> int:
        """One decoder layer, its two norms included."""
        return self.attention_parameters + self.mlp_parameters + 2 * self.norm_parameters

    @property
    def embedding_parameters(self) -> int:
        """Input and output embeddings together; one matrix where they are tied."""
        return (1 if self.tied_embeddings else 2) * self.vocab_size * self.hidden_size

    @property
    def non_embedding_parameters(self) -> int:
        """All layers and the final norm."""
        return self.layers * self.layer_parameters + self.norm_parameters

    @property
    def parameters(self) -> int:
        """Everything."""
        return self.embedding_parameters + self.non_embedding_parameters

    def flops_per_token(self, sequence: int, causal: bool = False) -> float:
        """Training FLOPs a token (forward and backward), attention in full or halved (SPEC 3.4)."""
        attention = 12 * self.layers * self.heads * self.head_dim * sequence
        dense = 6 * self.non_embedding_parameters + 6 * self.hidden_size * self.vocab_size
        return dense + attention * (0.5 if causal else 1.0)

    def kv_bytes_per_token(self, bytes_each: int = 2) -> int:
        """Bytes that one token takes in the KV cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_each


def _rising(ramp: list[tuple[int, int]]) -> list[tuple[int, int]]:
    if any(after <= before for before, after in pairwise([0, *(until for until, _ in ramp)])):
        raise ValueError(
            f"{ramp}: numbers of samples until which each holds must rise from above 0"
        )
    return ramp


Ramp = Annotated[list[tuple[int, PositiveInt]], AfterValidator(_rising)]


class MeshSpec(Settings):
    """How many ranks along each axis; `virtual` = chunks of the model a pipeline stage holds.

    zero: what dp ranks share out. 1: optimizer state; 2: gradients, too, after each micro-batch;
    3: weights, too, gathered layer by layer. With pp > 1 it is 1: micro-batches overlap there.
    """

    pp: int = Field(default=1, gt=0)
    dp: int = Field(default=1, gt=0)
    tp: int = Field(default=1, gt=0, description="tensor parallel, with sequence parallel")
    virtual: int = Field(default=1, gt=0)
    zero: Literal[1, 2, 3] = 3
    dp_ramp: Ramp = Field(
        default=[], description="[samples consumed, dp until then], before dp: a job for each"
    )
    timeout_seconds: int = Field(default=1800, gt=0, description="of a step, then it is a hang")
    device: str = Field(default="H100", description="that each rank has, for a dry run")

    @property
    def ranks(self) -> int:
        """Processes in all."""
        return self.pp * self.dp * self.tp

    def phase(self, consumed: int) -> "MeshSpec":
        """The mesh at a number of consumed samples: `dp` is the ramp's."""
        now = (dp for until, dp in self.dp_ramp if consumed < until)
        return self.model_copy(update={"dp": next(now, self.dp)})


class PlacementSpec(Settings):
    """How a module tree may be cut: what a model tells those who parallelise it, as data.

    `tensor`: module name (`*` = any layer) -> how it is split over tp (parallel/tensor.py);
    `layers`: the list that a pipeline cuts; `first`, `last`: held by its first or last chunk only;
    `precise`: the part that keeps its own dtype, if there is one.
    """

    tensor: dict[str, str]
    layers: str
    precise: str = ""
    first: tuple[str, ...] = ()
    last: tuple[str, ...] = ()


class DeviceSpec(Settings):
    """An accelerator by its published numbers: dense FLOP/s, GiB, bytes/s.

    `machine_gpus`: how many one fast link joins; `reachable`: the share of the peak that power
    leaves to matmuls.
    """

    name: str
    bf16_flops: float
    fp8_flops: float = 0.0
    memory_gib: float
    memory_bandwidth: float
    link_bandwidth: float
    network_bandwidth: float
    machine_gpus: int = 8
    reachable: float = 0.85


def preset(name: str) -> ModelSpec:
    """A published shape by name. Raises UserError that lists the names."""
    known = read_toml(Path(__file__).with_name("models.toml"))
    if name not in known:
        raise UserError(f"no model preset {name!r}; known: {', '.join(known)}")
    return ModelSpec(name=name, vocab_size=256_000, **known[name])
