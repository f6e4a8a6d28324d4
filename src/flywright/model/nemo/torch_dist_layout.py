"""Tensors of a torch_dist checkpoint, as torch.distributed.checkpoint writes it (SPEC 12.2).

`.metadata` is a pickle that says where each shard lies. It comes from outside, so no name in it is
ever imported: a short list of names stands for records that only hold what is put into them, and
every other name is refused. The shards are read with weights_only.
"""

import io
import pickle
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor

from flywright.errors import UserError
from flywright.model.nemo.archive import Archive
from flywright.model.nemo.stored import Piece, StoredTensor

# a tensor's name and a shard's offsets -> file, first byte, bytes
_Places = dict[tuple[str, tuple[int, ...]], tuple[str, int, int]]


class _Record:
    """Stands for an admitted class: keeps the state it is given, does nothing with it."""

    def __init__(self, *_arguments: Any):
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __getitem__(self, field: str) -> Any:
        return self.state[field]


class _TensorRecord(_Record):
    """TensorStorageMetadata: a tensor's size, properties and chunks."""


_RECORDS = {
    "torch.distributed.checkpoint.metadata": (
        "Metadata MetadataIndex StorageMeta ChunkStorageMetadata BytesStorageMetadata "
        "TensorProperties _MEM_FORMAT_ENCODING"
    ),
    "torch.distributed._shard.sharded_tensor.metadata": "TensorProperties MEM_FORMAT_ENCODING",
    "torch.distributed.checkpoint.filesystem": "_StorageInfo",
    "megatron.core.dist_checkpointing.strategies.torch": "MCoreMetadata MCoreSavePlan",
    "torch.serialization": "_get_layout",
    "pathlib": "PosixPath",
    "builtins": "getattr",  # Python 3.11's way to an enum's member; here it only makes a record
}
_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.uint8, torch.int32, torch.int64)
_ADMITTED: dict[tuple[str, str], Any] = {
    **{(module, name): _Record for module, names in _RECORDS.items() for name in names.split()},
    ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"): _TensorRecord,
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): dict,
    **{("torch", str(dtype).removeprefix("torch.")): dtype for dtype in _DTYPES},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise UserError(f"its pickle names {module}.{name}, which is not admitted; not read")
        return _ADMITTED[module, name]


def torch_dist_tensors(archive: Archive, folder: str) -> dict[str, StoredTensor]:
    """The model's tensors below `folder`. Raises UserError for a .metadata that is not plain."""
    path = f"{folder}.metadata"
    data = io.BytesIO(archive.read(path))
    try:
        metadata = _Unpickler(data).load()
        places: _Places = {}
        for index, at in metadata["storage_data"].items():
            if at.state.get("transform_descriptors"):
                raise UserError(f"shards stored with {at['transform_descriptors']} are not read")
            start = tuple(index.state.get("offset") or ())
            places[index["fqn"], start] = (at["relative_path"], at["offset"], at["length"])
        return {
            name: _tensor(archive, folder, name, entry, places)
            for name, entry in metadata["state_dict_metadata"].items()
            if isinstance(entry, _TensorRecord) and name.startswith("model.")
        }
    except UserError as error:
        raise UserError(f"{archive.where}: {path}: {error}") from None
    except Exception as error:  # a torn or foreign pickle fails in many ways
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{archive.where}: {path}: not a checkpoint's: {reason}") from None


def _tensor(
    archive: Archive, folder: str, name: str, entry: _TensorRecord, places: _Places
) -> StoredTensor:
    pieces = []
    for chunk in entry["chunks"]:
        offsets, sizes = tuple(chunk["offsets"]), tuple(chunk["sizes"])
        if (name, offsets) not in places:
            raise UserError(f"{name}: no place is given for its shard at {list(offsets)}")
        file, start, length = places[name, offsets]
        if PurePosixPath(file).name != file:
            raise UserError(f"{name}: {file!r} is not a file beside it")
        load = partial(_shard, archive, f"{folder}{file}", int(start), int(length))
        pieces.append(Piece(offsets, sizes, load))
    properties = entry["properties"].state  # a tuple; older torch: a dict
    dtype = properties["dtype"] if isinstance(properties, dict) else properties[0]
    return StoredTensor(f"{archive.where}: {name}", tuple(entry["size"]), dtype, pieces)


def _shard(archive: Archive, file: str, start: int, length: int) -> Tensor:
    data = io.BytesIO(archive.read(file, start, length))
    try:
        tensor = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # what weights_only refuses, and what is torn, fail in many ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{archive.where}: {file}: not a plain tensor: {reason}") from None
    if not isinstance(tensor, Tensor):
        raise UserError(f"{archive.where}: {file}: holds a {type(tensor).__name__}, not a tensor")
    return tensor
