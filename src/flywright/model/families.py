"""The families that one decoder covers, and their config.json: ModelSpec <-> Hugging Face keys.

A family is numbers (which norm, which MLP, which biases) and the spelling of its keys. What a
config asks for beyond them is refused by name, never ignored.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flywright.errors import UserError
from flywright.settings import parse_settings
from flywright.spec import ModelSpec, RotaryScaling

# ModelSpec field -> config.json key, the same in every family
_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn_size": "intermediate_size",
    "context_length": "max_position_embeddings",
    "init_std": "initializer_range",
    "rotary_base": "rope_theta",
    "bos_id": "bos_token_id",
    "eos_id": "eos_token_id",
    "tied_embeddings": "tie_word_embeddings",
}
# what every model of a family is, and what its config may not say otherwise
_GATED = {"norm": "rmsnorm", "mlp": "swiglu", "rotary_fraction": 1.0}
_PLAIN = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
_WHOLE = {"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False}
# what each kind of rope_scaling says, beside rope_type; the same words but for one
_SCALINGS = {
    "linear": ("factor",),
    "llama3": ("factor", "original_context", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor", "original_context", "beta_fast", "beta_slow", "attention_factor"),
}


def _their_word(name: str) -> str:
    return "original_max_position_embeddings" if name == "original_context" else name


@dataclass(frozen=True)
class Family:
    """`stem` of the class names; `spec`: what all its models are; `config`: what a config has to
    say, if it says it.
    """

    stem: str
    norm_key: str = "rms_norm_eps"
    spec: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "nemotron": Family("Nemotron", "norm_eps", config={**_PLAIN, "hidden_act": "relu2"}),
    "llama": Family("Llama", spec=_GATED, config=_PLAIN),
    "mistral": Family("Mistral", spec=_GATED, config={"hidden_act": "silu"}),
    "qwen2": Family("Qwen2", spec={**_GATED, "qkv_bias": True}, config=_WHOLE),
    "qwen3": Family("Qwen3", spec={**_GATED, "qk_norm": True}, config=_WHOLE),
}


def config_of(spec: ModelSpec, is_reward: bool) -> dict[str, Any]:
    """What config.json says of a model, its dtype and its reward labels apart."""
    family = FAMILIES[spec.family]
    task = "SequenceClassification" if is_reward else "CausalLM"
    config = {
        "model_type": spec.family,
        "architectures": [f"{family.stem}For{task}"],
        **{key: getattr(spec, name) for name, key in _KEYS.items()},
        family.norm_key: spec.norm_eps,
        **family.config,
        "attention_dropout": 0.0,
    }
    if spec.family == "nemotron":
        config["partial_rotary_factor"] = spec.rotary_fraction
    if spec.family == "mistral":
        config["sliding_window"] = None
    if spec.rotary_scaling is not None:
        config["rope_scaling"] = _scaling_config(spec.rotary_scaling)
    return config


def _scaling_config(scaling: RotaryScaling) -> dict[str, Any]:
    values = {name: getattr(scaling, name) for name in _SCALINGS[scaling.kind]}
    said = {_their_word(name): value for name, value in values.items()}
    return {"rope_type": scaling.kind, **{k: v for k, v in said.items() if v is not None}}


def spec_of(config: dict[str, Any], path: Path) -> ModelSpec:
    """The ModelSpec that a config.json states, in older spellings too; `path` is for errors.

    Raises UserError for another family, a missing key, or a part that the decoder does not have.
    """
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        known = ", ".join(FAMILIES)
        raise UserError(f"{path}: model_type {config.get('model_type')!r}; known: {known}")
    config = {key: value for key, value in config.items() if value is not None}
    for key, wanted in family.config.items():
        if config.get(key, wanted) != wanted:
            raise UserError(f"{path}: {key} {config[key]!r} is not supported, only {wanted!r}")
    rope = {**_table(config, "rope_scaling", path), **_table(config, "rope_parameters", path)}
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    known = {
        "head_dim": _share(hidden, heads),
        "num_key_value_heads": heads,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "rope_theta": rope.get("rope_theta", 10000.0),
        **config,
    }
    missing = [key for key in (*_KEYS.values(), family.norm_key) if key not in known]
    if missing:
        raise UserError(f"{path}: missing {missing[0]!r}")
    fields = {**{name: known[key] for name, key in _KEYS.items()}, **family.spec}
    fields["context_length"] = _context(config)
    ends = known["eos_token_id"]
    fields["eos_id"] = ends[0] if isinstance(ends, list) and ends else ends
    fields |= {"family": config["model_type"], "norm_eps": known[family.norm_key]}
    if config["model_type"] == "nemotron":
        share = config.get("partial_rotary_factor", config.get("rope_percent", 0.5))
        fields["rotary_fraction"] = rope.get("partial_rotary_factor", share)
    elif rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise UserError(f"{path}: partial_rotary_factor is not supported in this family")
    fields["rotary_scaling"] = _scaling(rope, fields["context_length"], path)
    return parse_settings(ModelSpec, fields, str(path))


def _share(hidden: Any, heads: Any) -> int | None:
    whole = isinstance(hidden, int) and isinstance(heads, int) and heads > 0
    return hidden // heads if whole else None


def _table(config: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    found = config.get(key, {})
    if not isinstance(found, dict):
        raise UserError(f"{path}: {key} is {found!r}, expected a table")
    return found


def _context(config: dict[str, Any]) -> int:
    """Positions that attend to all before them: a sliding window ends where it begins to slide."""
    window = config.get("sliding_window") if config["model_type"] == "mistral" else None
    positions = config["max_position_embeddings"]
    return min(positions, window) if window else positions


def _scaling(rope: dict[str, Any], context: int, path: Path) -> RotaryScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind not in _SCALINGS:
        raise UserError(f"{path}: rope scaling {kind!r}; known: {', '.join(_SCALINGS)}")
    for key, usual in (("mscale", None), ("mscale_all_dim", None), ("truncate", True)):
        if rope.get(key, usual) not in (usual, None):
            raise UserError(f"{path}: rope scaling with {key} {rope[key]!r} is not supported")
    said = {name: rope.get(_their_word(name)) for name in _SCALINGS[kind]}
    if said.get("original_context", 0) is None:
        said["original_context"] = context
    given = {name: value for name, value in said.items() if value is not None}
    return parse_settings(RotaryScaling, {**given, "kind": kind}, f"{path}: rope scaling")
