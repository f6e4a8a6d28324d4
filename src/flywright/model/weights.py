"""Weights folders: config.json, generation_config.json, safetensors (SPEC 12.1).

transformers and vLLM open such a folder as it is. `save` writes into a folder that the caller makes
whole and renames; nothing here is training state.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flywright.errors import UserError
from flywright.model.decoder import Decoder
from flywright.model.reward import RewardModel
from flywright.records import ATTRIBUTES, REWARD_WEIGHTS
from flywright.spec import ModelSpec

_CAUSAL, _REWARD = "NemotronForCausalLM", "NemotronForSequenceClassification"

# ModelSpec field -> config.json key of the nemotron family
_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn_size": "intermediate_size",
    "context_length": "max_position_embeddings",
    "rotary_fraction": "partial_rotary_factor",
    "rotary_base": "rope_theta",
    "norm_eps": "norm_eps",
    "init_std": "initializer_range",
}


def _config(model: Decoder | RewardModel) -> dict[str, Any]:
    spec = model.spec
    config: dict[str, Any] = {
        "model_type": "nemotron",
        "architectures": [_CAUSAL if isinstance(model, Decoder) else _REWARD],
        **{key: getattr(spec, field) for field, key in _KEYS.items()},
        "hidden_act": "relu2",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "dtype": str(model.model.embed_tokens.weight.dtype).removeprefix("torch."),
    }
    if isinstance(model, RewardModel):
        config["id2label"] = {str(i): name for i, name in enumerate(ATTRIBUTES)}
        config["label2id"] = {name: i for i, name in enumerate(ATTRIBUTES)}
        config["attribute_weights"] = list(REWARD_WEIGHTS)
        config["pad_token_id"] = 1
    return config


def save(model: Decoder | RewardModel, folder: Path, end_ids: Sequence[int] = (3,)) -> None:
    """Write config.json, generation_config.json and model.safetensors into `folder`.

    `end_ids` are the tokens at which generation stops (a chat model adds <extra_id_1>).
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(_config(model), indent=2) + "\n")
    if isinstance(model, Decoder):
        generation = {"bos_token_id": 2, "eos_token_id": list(end_ids), "do_sample": False}
        (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except OSError as error:
        message = f"{path}: {error.strerror} (a weights folder holds config.json)"
        raise UserError(message) from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if config.get("model_type") != "nemotron":
        raise UserError(f"{path}: model_type {config.get('model_type')!r}, expected 'nemotron'")
    return config


def read_spec(folder: Path) -> ModelSpec:
    """The ModelSpec that config.json states; older spellings of the rotary share are understood."""
    config = _read_config(Path(folder))
    rope = config.get("rope_parameters") or {}
    config.setdefault("rope_theta", rope.get("rope_theta", 10000.0))
    fraction = rope.get("partial_rotary_factor", config.get("rope_percent", 0.5))
    config.setdefault("partial_rotary_factor", fraction)
    config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    missing = [key for key in _KEYS.values() if key not in config]
    if missing:
        raise UserError(f"{folder}/config.json: missing {missing[0]!r}")
    return ModelSpec(**{field: config[key] for field, key in _KEYS.items()})


def _tensors(folder: Path) -> dict[str, Tensor]:
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise UserError(f"{folder}: no .safetensors file")
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as stream:
                for name in stream.keys():  # noqa: SIM118
                    tensors[name] = stream.get_tensor(name)
        except SafetensorError as error:
            raise UserError(f"{path}: not a readable safetensors file: {error}") from None
    return tensors


def load(folder: Path | str, dtype: torch.dtype | None = None) -> Decoder | RewardModel:
    """The model in a weights folder, in its own dtype or the one given (a reward head stays fp32).

    Raises UserError for a missing file, a foreign family, or a tensor missing, left over, or of
    another shape than config.json says (a reward folder without its head among them).
    """
    folder = Path(folder)
    config, spec = _read_config(folder), read_spec(folder)
    is_reward = _REWARD in config.get("architectures", [])
    tensors = _tensors(folder)
    with torch.device("meta"):
        model: Decoder | RewardModel = RewardModel(spec) if is_reward else Decoder(spec)
    _check_names(model, tensors, folder)
    model.load_state_dict(tensors, assign=True)
    if dtype is not None:
        model.to(dtype)
    if isinstance(model, RewardModel):
        model.score.float()
    return model


def _check_names(model: Decoder | RewardModel, tensors: dict[str, Tensor], folder: Path) -> None:
    expected = model.state_dict()
    if "score.bias" in expected:  # transformers writes the head without one
        tensors.setdefault("score.bias", torch.zeros(expected["score.bias"].shape))
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys())
    if missing:
        hint = " (the reward head)" if missing[0].startswith("score") else ""
        raise UserError(f"{folder}: tensor {missing[0]!r}{hint} is missing")
    if unknown:
        raise UserError(f"{folder}: tensor {unknown[0]!r} does not belong to the model")
    for name, tensor in expected.items():
        if tensor.shape != tensors[name].shape:
            found, wanted = list(tensors[name].shape), list(tensor.shape)
            raise UserError(f"{folder}: tensor {name!r} has shape {found}, expected {wanted}")
