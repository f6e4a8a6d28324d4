"""A weights folder for other tools: one dtype, shards of a size, a reward head without bias."""

import json
import shutil
from pathlib import Path

import torch

from flywright.errors import UserError
from flywright.files import atomic_folder
from flywright.model.reward import RewardModel
from flywright.model.weights import load, read_config, save, save_tensors

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf"}


def export(source: Path, out: Path, dtype: str = "", shard_gb: float = 5.0) -> str:
    """Write `out` from the weights folder `source`; one line of what was done.

    `dtype`: a name of DTYPES, or as stored. A reward model's bias goes into its final norm, because
    transformers' sequence classification has none; that is exact in fp32 only. Everything but
    tensors and the config's dtype is copied as it is. Raises UserError for an `out` that holds
    something, an unknown dtype, and what `load` raises.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already and not an empty folder; name a new one")
    if dtype and dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: one of {', '.join(DTYPES)}")
    config, shard_bytes = read_config(source), int(shard_gb * 1e9)
    model = load(source, DTYPES[dtype] if dtype else None)
    is_reward = isinstance(model, RewardModel)
    if is_reward and dtype not in ("", "fp32"):
        raise UserError(f"--dtype {dtype}: a reward model is exported in fp32, to be exact")
    with atomic_folder(out) as folder:
        if is_reward:
            model.float().fold_bias()
            save(model, folder, shard_bytes=shard_bytes, pad_id=config.get("pad_token_id"))
        else:
            stored = str(model.model.embed_tokens.weight.dtype).removeprefix("torch.")
            text = json.dumps({**config, "dtype": stored, "torch_dtype": stored}, indent=2)
            (folder / "config.json").write_text(text + "\n")
            save_tensors(model, folder, shard_bytes)
        _copy_the_rest(source, folder)
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{out}: {count:,} parameters in {model.model.embed_tokens.weight.dtype}"


def _copy_the_rest(source: Path, folder: Path) -> None:
    for path in sorted(source.iterdir()):
        is_weights = path.suffix in _WEIGHTS or path.name.endswith(".index.json")
        if path.is_file() and not is_weights and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
