"""Weights folders: config.json, generation_config.json, safetensors (SPEC 12.1).

transformers and vLLM open such a folder as it is, and theirs open here. `save` writes into a
folder that the caller makes whole and renames; nothing here is training state.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from flywright.errors import UserError
from flywright.files import read_json, write_json
from flywright.model.decoder import Decoder
from flywright.model.families import config_of, spec_of
from flywright.model.fp8 import Dequantised, quantised_layers, scales_of
from flywright.model.reward import RewardModel
from flywright.model.shards import SHARD_BYTES, folder_tensors, join_parts, write_parts
from flywright.records import ATTRIBUTES, REWARD_WEIGHTS
from flywright.spec import ModelSpec

Model = Decoder | RewardModel
AnyModel = TypeVar("AnyModel", Decoder, RewardModel, Model)
Tensors = Mapping[str, Tensor]
_HEAD = "lm_head.weight"


def write_config(
    model: Model, folder: Path, end_ids: Sequence[int] = (), pad_id: int | None = None
) -> None:
    """config.json and, for a language model, generation_config.json; no tensor's value is read.

    `end_ids` are the tokens at which generation stops (default: the spec's eos); `pad_id` tells
    transformers where a rated row ends (default: Nemotron's, or the spec's eos). A reward model's
    labels name its outputs in order. A model's first pipeline chunk will do.
    """
    spec, dtype = model.spec, str(model.model.embed_tokens.weight.dtype).removeprefix("torch.")
    config = {**config_of(spec, isinstance(model, RewardModel)), "dtype": dtype}
    if isinstance(model, RewardModel):
        config["id2label"] = {str(i): name for i, name in enumerate(model.labels)}
        config["label2id"] = {name: i for i, name in enumerate(model.labels)}
        config["attribute_weights"] = list(model.label_weights)
        usual = 1 if spec.family == "nemotron" else spec.eos_id
        config["pad_token_id"] = usual if pad_id is None else pad_id
    write_json(folder / "config.json", config)
    if isinstance(model, Decoder):
        ends = list(end_ids) or spec.eos_id
        generation = {"bos_token_id": spec.bos_id, "eos_token_id": ends, "do_sample": False}
        write_json(folder / "generation_config.json", generation)


def save(
    model: Model,
    folder: Path,
    end_ids: Sequence[int] = (),
    shard_bytes: int = SHARD_BYTES,
    pad_id: int | None = None,
) -> None:
    """Write config.json, generation_config.json and the tensors into `folder`; see write_config."""
    write_config(model, folder, end_ids, pad_id)
    save_tensors(model, folder, shard_bytes)


def save_tensors(model: Model, folder: Path, shard_bytes: int, fp8: bool = False) -> None:
    """The model's tensors into model.safetensors, or its shards and their index."""
    is_copy = lambda name: model.spec.tied_embeddings and name == _HEAD  # noqa: E731
    named = (pair for pair in model.state_dict().items() if not is_copy(pair[0]))
    named = quantised_layers(named) if fp8 else named
    join_parts(folder, [write_parts(folder, named, shard_bytes=shard_bytes)])


def read_spec(folder: Path) -> ModelSpec:
    """The ModelSpec that config.json states; see `families.spec_of`."""
    path = Path(folder) / "config.json"
    return spec_of(read_json(path), path)


def open_meta(folder: Path | str, dtype: torch.dtype | None = None) -> tuple[Model, Tensors]:
    """A folder's model on the meta device, and its tensors by name: mapped files, as stored.

    The model's dtype is theirs or the one given (the embedding's where they are FP8, which is
    dequantised as it is read); a reward head is fp32. Raises UserError for a missing file, a
    foreign family or quantisation, or a tensor missing, left over, or of another shape than
    config.json says (a reward folder without its head among them).
    """
    folder = Path(folder)
    config, spec = read_json(folder / "config.json"), read_spec(folder)
    is_reward = any("SequenceClassification" in name for name in config.get("architectures") or ())
    with torch.device("meta"):
        model = _reward_model(spec, config) if is_reward else Decoder(spec)
    stored = folder_tensors(folder)
    scales = scales_of(stored, config, folder)
    tensors = _checked(model, stored, folder, is_ours="attribute_weights" in config)
    if scales:
        dtype = dtype or tensors["model.embed_tokens.weight"].dtype
        tensors = Dequantised(tensors, scales, dtype)
    for name, parameter in model.named_parameters():
        kept = torch.float32 if name.startswith("score.") else dtype or tensors[name].dtype
        parameter.data = parameter.data.to(kept)
    return model, tensors


def load(folder: Path | str, dtype: torch.dtype | None = None) -> Model:
    """The model in a weights folder, as `open_meta` has it (dtype, errors), with its weights.

    In its own dtype these are the mapped files themselves: pages are read when they are used, and
    changed pages are private.
    """
    return materialise(*open_meta(folder, dtype))


def materialise(model: AnyModel, tensors: Mapping[str, Tensor]) -> AnyModel:
    """A model on the meta device with its tensors, in its own dtypes, on one process."""
    found = {}  # a tied head is not among them
    for name, parameter in model.named_parameters():  # one at a time: never two whole copies
        found[name] = tensors[name].to(parameter.dtype)
    model.load_state_dict(found, strict=False, assign=True)
    if isinstance(model, Decoder):
        model.tie()
    return model


def open_decoder(folder: Path | str, dtype: torch.dtype | None = None) -> tuple[Decoder, Tensors]:
    """`open_meta` for a language model's folder. Raises UserError for a reward model's too."""
    model, tensors = open_meta(folder, dtype)
    if not isinstance(model, Decoder):
        raise UserError(f"{folder}: a reward model rates answers, it cannot write them")
    return model, tensors


def load_decoder(folder: Path | str, dtype: torch.dtype | None = None) -> Decoder:
    """`load` for a language model's folder. Raises UserError for a reward model's too."""
    return materialise(*open_decoder(folder, dtype))


def _reward_model(spec: ModelSpec, config: dict[str, Any]) -> RewardModel:
    named = config.get("id2label")
    labels = tuple(named[str(i)] for i in range(len(named))) if named else ATTRIBUTES
    default = REWARD_WEIGHTS if labels == ATTRIBUTES else (1.0,) * len(labels)
    return RewardModel(spec, labels, tuple(config.get("attribute_weights", default)))


def _checked(model: Model, stored: Tensors, folder: Path, is_ours: bool) -> Tensors:
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
