"""Weights folders: config.json, generation_config.json, safetensors (SPEC 12.1).

transformers and vLLM open such a folder as it is, and theirs open here. `save` writes into a
folder that the caller makes whole and renames; nothing here is training state.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flywright.errors import UserError
from flywright.files import read_json, write_json
from flywright.model.decoder import Decoder
from flywright.model.families import config_of, spec_of
from flywright.model.reward import RewardModel
from flywright.model.shards import SHARD_BYTES, FolderTensors, ShardWriter
from flywright.records import ATTRIBUTES, REWARD_WEIGHTS
from flywright.spec import ModelSpec

_HEAD = "lm_head.weight"


def write_config(
    spec: ModelSpec,
    folder: Path,
    *,
    dtype: torch.dtype,
    end_ids: Sequence[int] = (),
    labels: Sequence[str] = (),
    label_weights: Sequence[float] = (),
    pad_id: int | None = None,
) -> None:
    """config.json and, for a language model, generation_config.json.

    `end_ids` are the tokens at which generation stops (default: the spec's eos). `labels` name the
    outputs of a reward model's head in order, `label_weights` are those of the weighted sum;
    `pad_id` tells transformers where a padded row ends (default: Nemotron's, or the spec's eos).
    """
    config = {**config_of(spec, bool(labels)), "dtype": str(dtype).removeprefix("torch.")}
    if labels:
        config["id2label"] = {str(i): name for i, name in enumerate(labels)}
        config["label2id"] = {name: i for i, name in enumerate(labels)}
        config["attribute_weights"] = list(label_weights)
        usual = 1 if spec.family == "nemotron" else spec.eos_id
        config["pad_token_id"] = usual if pad_id is None else pad_id
    write_json(folder / "config.json", config)
    if not labels:
        ends = list(end_ids) or spec.eos_id
        generation = {"bos_token_id": spec.bos_id, "eos_token_id": ends, "do_sample": False}
        write_json(folder / "generation_config.json", generation)


def save(
    model: Decoder | RewardModel,
    folder: Path,
    end_ids: Sequence[int] = (),
    shard_bytes: int = SHARD_BYTES,
    pad_id: int | None = None,
) -> None:
    """Write config.json, generation_config.json and the tensors into `folder`.

    `end_ids` are the tokens at which generation stops (a chat model adds its end of turn).
    """
    is_reward = isinstance(model, RewardModel)
    write_config(
        model.spec,
        folder,
        dtype=model.model.embed_tokens.weight.dtype,
        end_ids=end_ids,
        labels=model.labels if is_reward else (),
        label_weights=model.label_weights if is_reward else (),
        pad_id=pad_id,
    )
    save_tensors(model, folder, shard_bytes)


def save_tensors(model: Decoder | RewardModel, folder: Path, shard_bytes: int) -> None:
    """The model's tensors into model.safetensors, or its shards and their index."""
    with ShardWriter(folder, shard_bytes) as out:
        for name, tensor in model.state_dict().items():
            if not (model.spec.tied_embeddings and name == _HEAD):
                out.add(name, tensor)


def read_spec(folder: Path) -> ModelSpec:
    """The ModelSpec that config.json states; see `families.spec_of`."""
    path = Path(folder) / "config.json"
    return spec_of(read_json(path), path)


def load(folder: Path | str, dtype: torch.dtype | None = None) -> Decoder | RewardModel:
    """The model in a weights folder, in its own dtype or the one given (a reward head stays fp32).

    In its own dtype the weights are the mapped files themselves: pages are read when they are
    used, and changed pages are private. Raises UserError for a missing file, a foreign family, or
    a tensor missing, left over, or of another shape than config.json says (a reward folder without
    its head among them).
    """
    folder = Path(folder)
    config, spec = read_json(folder / "config.json"), read_spec(folder)
    is_reward = any("SequenceClassification" in name for name in config.get("architectures") or ())
    stored = FolderTensors(folder)
    with torch.device("meta"):
        model = _reward_model(spec, config) if is_reward else Decoder(spec)
    tensors = _checked(model, stored, folder, is_ours="attribute_weights" in config)
    for name in tensors if dtype is not None else ():
        if not name.startswith("score."):  # one at a time: two whole copies never stand together
            tensors[name] = tensors[name].to(dtype)
    model.load_state_dict(tensors, assign=True)
    if isinstance(model, RewardModel):
        model.score.float()
    else:
        model.tie()
    return model


def load_decoder(folder: Path | str, dtype: torch.dtype | None = None) -> Decoder:
    """`load` for a language model's folder. Raises UserError for a reward model's too."""
    model = load(folder, dtype)
    if not isinstance(model, Decoder):
        raise UserError(f"{folder}: a reward model rates answers, it cannot write them")
    return model


def _reward_model(spec: ModelSpec, config: dict[str, Any]) -> RewardModel:
    named = config.get("id2label")
    labels = tuple(named[str(i)] for i in range(len(named))) if named else ATTRIBUTES
    default = REWARD_WEIGHTS if labels == ATTRIBUTES else (1.0,) * len(labels)
    return RewardModel(spec, labels, tuple(config.get("attribute_weights", default)))


def _checked(
    model: Decoder | RewardModel, stored: FolderTensors, folder: Path, is_ours: bool
) -> dict[str, Tensor]:
    """The model's tensors by name, mapped; what a head of theirs may lack is filled in."""
    expected = model.state_dict()
    tensors = {name: tensor for name, tensor in stored.items() if "rotary_emb" not in name}
    if "score.bias" in expected and not is_ours:  # transformers writes the head without one
        tensors.setdefault("score.bias", torch.zeros(expected["score.bias"].shape))
    if model.spec.tied_embeddings and _HEAD in expected:
        tensors.setdefault(_HEAD, tensors.get("model.embed_tokens.weight", torch.empty(0)))
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
    return tensors
