"""LoRA: low-rank adapters beside frozen weights, put on from outside; files are peft's.

y = x W^T + (alpha / rank) (x A^T) B^T. A starts random, B at zero: at first nothing is changed.
Shapes: R rank, D in, E out.
"""

import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flywright.errors import UserError
from flywright.files import read_json, write_json
from flywright.model import Decoder, RewardModel
from flywright.train.settings import LoraSettings

_PREFIX = "base_model.model."  # of peft's tensor names
_CONFIG, _TENSORS = "adapter_config.json", "adapter_model.safetensors"
_HEAD = "score"  # a reward model's head is trained whole beside the adapters


class LoraLinear(nn.Module):
    """A frozen linear layer with its adapter; both have the layer's place in the module tree."""

    def __init__(self, base: nn.Linear, rank: int, scale: float, generator: torch.Generator):
        super().__init__()
        self.base, self.scale = base.requires_grad_(False), scale
        like = base.weight
        self.lora_A = nn.Linear(base.in_features, rank, False, like.device, like.dtype)
        self.lora_B = nn.Linear(rank, base.out_features, False, like.device, like.dtype)
        start_RD = torch.empty(rank, base.in_features)  # drawn where the generator is
        nn.init.kaiming_uniform_(start_RD, a=math.sqrt(5), generator=generator)
        self.lora_A.weight.data.copy_(start_RD)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.lora_B(self.lora_A(x)) * self.scale


def _targets(model: nn.Module, names: list[str]) -> dict[str, nn.Linear]:
    found = {
        name: module
        for name, module in model.named_modules()
        if ".layers." in name and name.rpartition(".")[2] in names and isinstance(module, nn.Linear)
    }
    missing = set(names) - {name.rpartition(".")[2] for name in found}
    if missing:
        raise UserError(f"lora.targets: no linear layer {sorted(missing)[0]!r} in its layers")
    return found


def put_on(model: Decoder | RewardModel, settings: LoraSettings, seed: int) -> None:
    """Freeze the model and give its `targets` adapters; only these (and a reward head) train.

    Raises UserError for a target that the model has not.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = _targets(model, settings.targets)
    model.requires_grad_(False)
    if isinstance(model, RewardModel):
        model.score.requires_grad_(True)
    for name, layer in layers.items():
        scale = settings.alpha / settings.rank
        model.set_submodule(name, LoraLinear(layer, settings.rank, scale, generator))


def save_adapter(model: nn.Module, settings: LoraSettings, folder: Path) -> None:
    """adapter_config.json and adapter_model.safetensors as peft reads them on the same base.

    A reward head goes with them (peft's modules_to_save), with a Nemotron's bias, which the merged
    folder keeps; transformers' sequence classification has none, and peft leaves it out there.
    """
    tensors = {
        f"{_PREFIX}{name}": tensor.detach().float().contiguous()
        for name, tensor in model.state_dict().items()
        if ".lora_" in name or name.startswith(_HEAD)
    }
    is_reward = any(name.startswith(_PREFIX + _HEAD) for name in tensors)
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if is_reward else "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": settings.targets,
        "modules_to_save": [_HEAD] if is_reward else None,
    }
    write_json(folder / _CONFIG, config)
    save_file(tensors, folder / _TENSORS, metadata={"format": "pt"})


@torch.no_grad()
def merge(model: Decoder | RewardModel, folder: Path) -> None:
    """Add an adapter folder (ours or peft's) into the weights of the base that it was trained on.

    Raises UserError where it is no plain LoRA adapter, or of another model.
    """
    try:
        config, tensors = read_json(folder / _CONFIG), load_file(folder / _TENSORS)
        scale = config["lora_alpha"] / config["r"]
    except (OSError, KeyError, SafetensorError, UserError) as error:
        raise UserError(f"{folder}: not an adapter folder: {error}") from None
    if config.get("use_dora") or config.get("rank_pattern") or config.get("use_rslora"):
        raise UserError(f"{folder}: only plain LoRA adapters can be merged")
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        bare = name.removeprefix(_PREFIX).replace(".default", "")
        owner = bare.replace(".lora_A.weight", ".weight").replace(".lora_B.weight", ".weight")
        if owner not in parameters:
            raise UserError(f"{folder}: {bare}: the model has no such layer")
        weight_ED = parameters[owner]
        if ".lora_A" in bare:
            b_ER = tensors[name.replace(".lora_A", ".lora_B")].to(weight_ED.device)
            if (b_ER.shape[0], tensor.shape[1]) != weight_ED.shape:
                raise UserError(f"{folder}: {bare}: the adapter is of a model of another size")
            weight_ED += scale * (b_ER.float() @ tensor.float().to(b_ER.device)).to(weight_ED.dtype)
        elif ".lora_B" not in bare:
            weight_ED.copy_(tensor)
