"""What Megatron-core calls things: model_config.yaml and tensor names to ours (SPEC 12.2).

Layers come stacked on axis 0 or one by one. Query, key and value rows are packed by query group.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from flywright.errors import UserError
from flywright.model.nemo.stored import StoredTensor
from flywright.settings import parse_settings
from flywright.spec import ModelSpec

EMBEDDING = "model.embedding.word_embeddings.weight"
REWARD_HEAD = "model.rm_head.weight"
_OUTPUT = "model.output_layer.weight"
_WHOLE = {
    EMBEDDING: "model.embed_tokens.weight",
    "model.decoder.final_layernorm.weight": "model.norm.weight",
    "model.decoder.final_layernorm.bias": "model.norm.bias",
    _OUTPUT: "lm_head.weight",
    REWARD_HEAD: "score.weight",
    "model.rm_head.bias": "score.bias",
}
_QKV = ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight")
# fused into the matrix after them (Transformer Engine), or modules of their own
_NORMS = (
    ("self_attention.linear_qkv.layer_norm_", "input_layernorm"),
    ("input_layernorm.", "input_layernorm"),
    ("mlp.linear_fc1.layer_norm_", "post_attention_layernorm"),
    ("pre_mlp_layernorm.", "post_attention_layernorm"),
)
_IN_LAYER: dict[str, tuple[str, ...]] = {
    "self_attention.linear_qkv.weight": _QKV,
    "self_attention.linear_proj.weight": ("self_attn.o_proj.weight",),
    "mlp.linear_fc1.weight": ("mlp.up_proj.weight",),
    "mlp.linear_fc2.weight": ("mlp.down_proj.weight",),
    **{f"{theirs}{x}": (f"{ours}.{x}",) for theirs, ours in _NORMS for x in ("weight", "bias")},
}
_LAYER = re.compile(r"model\.decoder\.layers\.(?:(\d+)\.)?(.+)")
_IGNORED = re.compile(r".*(_extra_state|rotary_pos_emb\.inv_freq).*")

# what makes a config a Nemotron's; where a key is missing NeMo's own default is another value
_REQUIRED = {
    "mcore_gpt": True,
    "activation": "squared-relu",
    "normalization": "layernorm1p",
    "bias": False,
    "position_embedding_type": "rope",
    "share_embeddings_and_output_weights": False,
}
_REFUSED = ("rotary_interleaved", "seq_len_interpolation_factor", "scale_positional_embedding")
_REFUSED += ("qk_layernorm", "num_moe_experts", "apply_embedding_scaling", "use_avg_pool")


@dataclass(frozen=True)
class Job:
    """A part of a stored tensor (one layer of a stack, or all) and the names it goes to."""

    stored: StoredTensor
    index: int | None
    targets: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what `read` gives."""
        return self.stored.shape if self.index is None else self.stored.shape[1:]


def read_spec(
    config: Mapping[str, Any], stored: Mapping[str, StoredTensor], where: str
) -> ModelSpec:
    """The ModelSpec of a model_config.yaml; vocabulary and FFN size are those of the tensors.

    Raises UserError that names the key and value of what is not a Nemotron decoder.
    """
    for key, wanted in _REQUIRED.items():
        if config.get(key) != wanted:
            found = repr(config[key]) if key in config else "missing"
            raise UserError(f"{where}: {key} is {found}; a Nemotron decoder has {wanted!r}")
    for key in _REFUSED:
        if config.get(key):
            raise UserError(f"{where}: {key} is {config[key]!r}; a Nemotron decoder has none")
    up = next((t for name, t in stored.items() if name.endswith("linear_fc1.weight")), None)
    if EMBEDDING not in stored or up is None:
        name = EMBEDDING if EMBEDDING not in stored else "mlp.linear_fc1.weight"
        raise UserError(f"{where}: the tensors beside it lack {name!r}")
    layers, hidden, heads = (
        _count(config, key, where) for key in ("num_layers", "hidden_size", "num_attention_heads")
    )
    tree = {
        "vocab_size": stored[EMBEDDING].shape[0],
        "ffn_size": up.shape[-2],
        "layers": layers,
        "hidden_size": hidden,
        "heads": heads,
        "kv_heads": config.get("num_query_groups") or heads,
        "head_dim": config.get("kv_channels") or hidden // heads,
        "context_length": _context(config),
        "rotary_fraction": config.get("rotary_percentage", 1.0),
        "rotary_base": config.get("rotary_base", 10000.0),
        "norm_eps": config.get("layernorm_epsilon", 1e-5),
        "init_std": config.get("init_method_std", 0.02),
    }
    return parse_settings(ModelSpec, tree, where)


def _count(config: Mapping[str, Any], key: str, where: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{where}: {key} is {value!r}, expected a whole number above 0")
    return value


def _context(config: Mapping[str, Any]) -> Any:
    """Positions; one of the two keys is often a reference to the other, ${.encoder_seq_length}."""
    values = (config.get(key) for key in ("max_position_embeddings", "encoder_seq_length"))
    return next((value for value in values if value and "$" not in str(value)), None)


def plan_jobs(stored: Mapping[str, StoredTensor], layers: int, where: str) -> list[Job]:
    """What to read for which names. Raises UserError for a tensor that a Nemotron has not."""
    jobs: list[Job] = []
    for name, tensor in stored.items():
        in_layer = _LAYER.fullmatch(name)
        if _IGNORED.fullmatch(name) or (name == _OUTPUT and REWARD_HEAD in stored):
            continue
        if name in _WHOLE:
            jobs.append(Job(tensor, None, (_WHOLE[name],)))
        elif in_layer and in_layer[2] in _IN_LAYER:
            stacked = in_layer[1] is None
            if stacked and tensor.shape[0] != layers:
                raise UserError(f"{where}: {name!r} holds {tensor.shape[0]} layers, not {layers}")
            for layer in range(layers) if stacked else [int(in_layer[1])]:
                names = (f"model.layers.{layer}.{target}" for target in _IN_LAYER[in_layer[2]])
                jobs.append(Job(tensor, layer if stacked else None, tuple(names)))
        else:
            raise UserError(f"{where}: tensor {name!r} does not belong to a Nemotron decoder")
    return jobs


def unpacked_qkv(packed: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor, Tensor]:
    """q [H*K, D], k and v [G*K, D] of rows that hold, group by group, its queries, key and value.

    H query heads, G groups, K head dimension, D hidden (SPEC 12.2).
    """
    groups, size = spec.kv_heads, spec.head_dim
    grouped = packed.view(groups, spec.heads // groups + 2, size, packed.shape[-1])
    q, k, v = grouped.split([spec.heads // groups, 1, 1], dim=1)
    return q.flatten(0, 2), k.flatten(0, 2), v.flatten(0, 2)
