"""Models, meshes and devices by their numbers, with what follows from the numbers.

ModelSpec knows its parameters, FLOPs a token and KV-cache bytes (SPEC 1.2, 3.4), so that training,
the planner and the report count alike. Presets by name (models.toml):
`preset("nemotron-4-340b")`.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from flywright.errors import UserError
from flywright.settings import Settings, read_toml


class ModelSpec(Settings):
    """A Nemotron decoder: LayerNorm1P, squared ReLU, GQA, partial rotary, untied embeddings."""

    name: str = ""
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
    norm_eps: float = 1e-5
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
        """Weights of q, k, v and o in one layer."""
        qkv = self.hidden_size * (self.heads + 2 * self.kv_heads) * self.head_dim
        return qkv + self.heads * self.head_dim * self.hidden_size

    @property
    def mlp_parameters(self) -> int:
        """Weights of the two matrices of one MLP."""
        return 2 * self.hidden_size * self.ffn_size

    @property
    def layer_parameters(self) -> int:
        """One decoder layer, its two norms (weight and bias) included."""
        return self.attention_parameters + self.mlp_parameters + 4 * self.hidden_size

    @property
    def embedding_parameters(self) -> int:
        """Input and output embeddings together (untied)."""
        return 2 * self.vocab_size * self.hidden_size

    @property
    def non_embedding_parameters(self) -> int:
        """All layers and the final norm."""
        return self.layers * self.layer_parameters + 2 * self.hidden_size

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


class MeshSpec(Settings):
    """How many ranks along each axis; `virtual` = chunks of the model a pipeline stage holds."""

    pp: int = Field(default=1, gt=0)
    dp: int = Field(default=1, gt=0)
    tp: int = Field(default=1, gt=0)
    virtual: int = Field(default=1, gt=0)

    @property
    def ranks(self) -> int:
        """Processes in all."""
        return self.pp * self.dp * self.tp


class PlacementSpec(Settings):
    """How a module tree may be cut: what a model tells those who parallelise it, as data.

    `tensor`: module name (`*` = any layer) -> the way its weight is split over tp ranks;
    `layers`: the list that a pipeline cuts; `first`, `last`: held by its first or last chunk only.
    """

    tensor: dict[str, Literal["column", "row", "vocab", "head", "replicate"]]
    layers: str
    first: tuple[str, ...] = ()
    last: tuple[str, ...] = ()


class DeviceSpec(Settings):
    """An accelerator by its published numbers: dense FLOP/s, GiB, bytes/s.

    `reachable`: the share of the peak that power leaves to matmuls.
    """

    name: str
    bf16_flops: float
    fp8_flops: float = 0.0
    memory_gib: float
    memory_bandwidth: float
    link_bandwidth: float
    network_bandwidth: float
    reachable: float = 0.85


def preset(name: str) -> ModelSpec:
    """A published shape by name. Raises UserError that lists the names."""
    known = read_toml(Path(__file__).with_name("models.toml"))
    if name not in known:
        raise UserError(f"no model preset {name!r}; known: {', '.join(known)}")
    return ModelSpec(name=name, vocab_size=256_000, **known[name])
