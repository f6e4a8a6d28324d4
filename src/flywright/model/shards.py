"""Tensors of a weights folder: one safetensors file, or several with an index (SPEC 12.1).

Reading maps the files into memory: a tensor costs nothing until it is used, and is not copied.
Writing streams, by one writer or several. Both are the Hugging Face layout.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flywright.errors import UserError
from flywright.files import atomic_file, write_json

ONE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
Named = Iterable[tuple[str, Tensor]]
Part = dict[str, dict[str, int]]  # file -> tensor -> bytes


def folder_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder by name, each mapped into memory.

    Raises UserError for a folder without weights, a missing shard, or a file that is torn.
    """
    path, files = folder / INDEX, {}
    if not path.exists():
        whole = _opened(folder / ONE_FILE)
        return {name: whole.get_tensor(name) for name in whole.keys()}  # noqa: SIM118
    try:
        where = dict(json.loads(path.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not an index of safetensors (no weight_map)") from None
    found = {}
    for name, file in where.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise UserError(f"{path}: {file!r} is not a file name in the folder")
        if file not in files:
            files[file] = _opened(folder / file)
        if name not in files[file].keys():  # noqa: SIM118
            raise UserError(f"{folder / file}: tensor {name!r} of the index is missing")
        found[name] = files[file].get_tensor(name)
    return found


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (a weights folder holds it)") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not a readable safetensors file: {error}") from None


def write_parts(
    folder: Path, tensors: Named, writer: int = 0, shard_bytes: int = SHARD_BYTES
) -> Part:
    """Tensors into files of at most `shard_bytes`; each of several writers has a number.

    No more than one file's tensors stand in memory. `join_parts` makes them a weights folder.
    """
    part: Part = {}
    waiting: dict[str, Tensor] = {}

    def flush() -> None:
        file = f"model-part-{writer}-{len(part)}.safetensors"
        with atomic_file(folder / file) as temporary:  # on the disk, whoever renames the folder
            save_file(waiting, temporary, metadata={"format": "pt"})
        part[file] = {name: tensor.nbytes for name, tensor in waiting.items()}
        waiting.clear()

    for name, tensor in tensors:
        if waiting and sum(each.nbytes for each in waiting.values()) + tensor.nbytes > shard_bytes:
            flush()
        waiting[name] = tensor.cpu().contiguous()
    flush()
    return part


def join_parts(folder: Path, parts: Iterable[Part]) -> None:
    """Make all writers' files one model.safetensors, or numbered shards and their index."""
    files = [pair for part in parts for pair in part.items()]
    where, total_bytes = {}, 0
    for number, (file, sizes) in enumerate(files, start=1):
        shard = f"model-{number:05}-of-{len(files):05}.safetensors" if files[1:] else ONE_FILE
        (folder / file).rename(folder / shard)
        where.update(dict.fromkeys(sizes, shard))
        total_bytes += sum(sizes.values())
    if files[1:]:
        metadata = {"total_size": total_bytes}
        write_json(folder / INDEX, {"metadata": metadata, "weight_map": where})
