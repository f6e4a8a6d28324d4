"""A weights folder for other tools: one dtype, shards of a size, a reward head without bias."""

import shutil
from pathlib import Path

import torch

from flywright.errors import UserError
from flywright.files import atomic_folder, read_json, refuse_filled, write_json
from flywright.model.reward import RewardModel
from flywright.model.weights import load, save, save_tensors

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf"}


def export(source: Path, out: Path, dtype: str = "", shard_gb: float = 5.0) -> str:
    """Write `out` from the weights folder `source`; one line of what was done.

    `dtype`: a name of DTYPES, or as stored. A reward model's bias goes into its final norm, because
    transformers' sequence classification has none; that is exact in fp32 only. Everything but
    tensors and the config's dtype is copied as it is. Raises UserError for an `out` that holds
    something, an unknown dtype, and what `load` raises.
    """
    refuse_filled(out)
    if dtype and dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: one of {', '.join(DTYPES)}")
    config, shard_bytes = read_json(source / "config.json"), int(shard_gb * 1e9)
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
            config.pop("torch_dtype", None)  # its name before transformers 5
            write_json(folder / "config.json", {**config, "dtype": stored})
            save_tensors(model, folder, shard_bytes)
        for path in source.iterdir():
            is_weights = path.suffix in _WEIGHTS or path.name.endswith(".index.json")
            if path.is_file() and not is_weights and not (folder / path.name).exists():
                shutil.copyfile(path, folder / path.name)
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{out}: {count:,} parameters in {model.model.embed_tokens.weight.dtype}"
