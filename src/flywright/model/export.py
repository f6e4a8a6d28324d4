"""A weights folder for other tools: a dtype or FP8, shards of a size, no bias on a reward head."""

import shutil
from pathlib import Path

import torch

from flywright.errors import UserError
from flywright.files import atomic_folder, read_json, refuse_filled, write_json
from flywright.model import fp8 as float8
from flywright.model.reward import RewardModel
from flywright.model.weights import load, save, save_tensors

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf"}


def export(
    source: Path, out: Path, dtype: str = "", shard_gb: float = 5.0, fp8: bool = False
) -> str:
    """Write `out` from the weights folder `source`; one line of what was done.

    `dtype`: a name of DTYPES, or as stored; with `fp8` of all but the layers' matrices. A reward
    model's bias goes into its final norm, because transformers' sequence classification has none;
    that is exact in fp32 only. Everything but tensors and what the config says of them is copied as
    it is. Raises UserError for an `out` that holds something, an unknown dtype, a reward model in
    anything but fp32, and what `load` raises.
    """
    refuse_filled(out)
    if dtype and dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: one of {', '.join(DTYPES)}")
    config, shard_bytes = read_json(source / "config.json"), int(shard_gb * 1e9)
    model = load(source, DTYPES[dtype] if dtype else None)
    is_reward = isinstance(model, RewardModel)
    if is_reward and (fp8 or dtype not in ("", "fp32")):
        asked = "--fp8" if fp8 else f"--dtype {dtype}"
        raise UserError(f"{asked}: a reward model is exported in fp32, to be exact")
    with atomic_folder(out) as folder:
        if is_reward:
            model.float().fold_bias()
            save(model, folder, shard_bytes=shard_bytes, pad_id=config.get("pad_token_id"))
        else:
            stored = str(model.model.embed_tokens.weight.dtype).removeprefix("torch.")
            config.pop("torch_dtype", None)  # its name before transformers 5
            config.pop(float8.KEY, None)  # of an FP8 source
            said = {float8.KEY: float8.CONFIG} if fp8 else {}
            write_json(folder / "config.json", {**config, "dtype": stored, **said})
            save_tensors(model, folder, shard_bytes, fp8)
        for path in source.iterdir():
            is_weights = path.suffix in _WEIGHTS or path.name.endswith(".index.json")
            if path.is_file() and not is_weights and not (folder / path.name).exists():
                shutil.copyfile(path, folder / path.name)
    count = sum(parameter.numel() for parameter in model.parameters())
    form = "the layers' matrices in FP8, the rest" if fp8 else "all"
    return f"{out}: {count:,} parameters, {form} in {model.model.embed_tokens.weight.dtype}"
