"""Tensors of a weights folder: one safetensors file, or several with an index (SPEC 12.1).

Reading maps the files into memory: a tensor costs nothing until it is used, and is not copied.
Writing streams: no more than one shard stands in memory. Both are the Hugging Face layout.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flywright.errors import UserError

ONE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000


class FolderTensors(Mapping[str, Tensor]):
    """The tensors of a folder by name, each mapped into memory when asked for.

    Raises UserError for a folder without weights, a missing shard, or a file that is torn.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._files: dict[str, safe_open] = {}
        self._where = self._index()

    def _index(self) -> dict[str, str]:
        path = self._folder / INDEX
        if not path.exists():
            return dict.fromkeys(self._open(ONE_FILE).keys(), ONE_FILE)
        try:
            where = dict(json.loads(path.read_text(encoding="utf-8"))["weight_map"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: not an index of safetensors (no weight_map)") from None
        for name, file in where.items():
            if not isinstance(file, str) or Path(file).name != file:
                raise UserError(f"{path}: {file!r} is not a file name in the folder")
            if name not in self._open(file).keys():  # noqa: SIM118
                raise UserError(f"{self._folder / file}: tensor {name!r} of the index is missing")
        return where

    def _open(self, file: str) -> safe_open:
        if file not in self._files:
            path = self._folder / file
            try:
                self._files[file] = safe_open(path, framework="pt")
            except FileNotFoundError:
                raise UserError(f"{path}: no such file (a weights folder holds it)") from None
            except SafetensorError as error:
                raise UserError(f"{path}: not a readable safetensors file: {error}") from None
        return self._files[file]

    def __getitem__(self, name: str) -> Tensor:
        return self._files[self._where[name]].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


class ShardWriter:
    """Tensors into a folder, one after the other; a context manager.

    with ShardWriter(folder) as out:
        out.add("lm_head.weight", tensor)

    At the end there is model.safetensors, or its shards and their index.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES):
        self._folder, self._shard_bytes = folder, shard_bytes
        self._waiting: dict[str, Tensor] = {}
        self._shards: list[list[str]] = []
        self._total_bytes = 0

    def __enter__(self) -> "ShardWriter":
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, name: str, tensor: Tensor) -> None:
        """One more tensor; what waits is written first where the shard would grow too large."""
        waiting = sum(each.nbytes for each in self._waiting.values())
        if self._waiting and waiting + tensor.nbytes > self._shard_bytes:
            self._flush()
        self._waiting[name] = tensor.contiguous()
        self._total_bytes += tensor.nbytes

    def _flush(self) -> None:
        save_file(self._waiting, self._part(len(self._shards)), metadata={"format": "pt"})
        self._shards.append(list(self._waiting))
        self._waiting = {}

    def _part(self, number: int) -> Path:
        return self._folder / f"model-part-{number}.safetensors"

    def __exit__(self, kind: type[BaseException] | None, *_raised: object) -> None:
        if kind is not None:
            return
        self._flush()
        count = len(self._shards)
        if count == 1:
            self._part(0).rename(self._folder / ONE_FILE)
            return
        where = {}
        for number, names in enumerate(self._shards):
            file = f"model-{number + 1:05}-of-{count:05}.safetensors"
            self._part(number).rename(self._folder / file)
            where.update(dict.fromkeys(names, file))
        index = {"metadata": {"total_size": self._total_bytes}, "weight_map": where}
        (self._folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
