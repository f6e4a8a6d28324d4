"""A .nemo as a whole: its config, its tokenizer's file, and its tensors into a weights folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from flywright.errors import UserError
from flywright.model.decoder import Decoder
from flywright.model.nemo import mcore
from flywright.model.nemo.archive import Archive, open_archive
from flywright.model.nemo.stored import StoredTensor
from flywright.model.nemo.torch_dist_layout import torch_dist_tensors
from flywright.model.nemo.zarr_layout import zarr_tensors
from flywright.model.reward import NINE_LABELS, NINE_WEIGHTS, RewardModel
from flywright.model.shards import SHARD_BYTES, Named, join_parts, write_parts
from flywright.model.weights import write_config
from flywright.progress import Tick, silent
from flywright.records import ATTRIBUTES, REWARD_WEIGHTS

_CONFIG, _WEIGHTS = "model_config.yaml", "model_weights/"
_HEADS = {5: (ATTRIBUTES, REWARD_WEIGHTS), 9: (NINE_LABELS, NINE_WEIGHTS)}  # SPEC 5.1


class Nemo:
    """An open .nemo. Nothing of its tensors is read before `write_weights`."""

    def __init__(self, archive: Archive):
        self._archive, self.where = archive, str(archive.where)
        self.config = _config(archive)
        self._stored = _tensors(archive)
        self.spec = mcore.read_spec(self.config, self._stored, f"{self.where}: {_CONFIG}")

    @property
    def is_reward(self) -> bool:
        return mcore.REWARD_HEAD in self._stored

    def tokenizer_file(self) -> bytes | None:
        """The SentencePiece model that the config names; None where it names no such file."""
        named = self.config.get("tokenizer")
        if not isinstance(named, dict) or named.get("library") != "sentencepiece":
            return None
        name = PurePosixPath(str(named.get("model")).removeprefix("nemo:")).name
        return self._archive.read(name) if name in self._archive.names else None

    def write_weights(
        self,
        folder: Path,
        end_ids: tuple[int, ...] = (),
        shard_bytes: int = SHARD_BYTES,
        tick: Tick = silent,
    ) -> None:
        """config.json, generation_config.json and safetensors, one layer's tensor at a time.

        The dtype is that of the embedding; a reward head is written in fp32. Raises UserError
        where a tensor is missing or not of the shape that the config asks for, before writing.
        """
        labels, label_weights = self._head()
        with torch.device("meta"):
            model = RewardModel(self.spec, labels, label_weights) if labels else Decoder(self.spec)
        jobs = self._checked({name: tuple(t.shape) for name, t in model.state_dict().items()})
        dtype = self._stored[mcore.EMBEDDING].dtype
        write_config(model.to(dtype), folder, end_ids)
        named = self._converted(jobs, dtype, tick)
        join_parts(folder, [write_parts(folder, named, shard_bytes=shard_bytes)])

    def _converted(self, jobs: list[mcore.Job], dtype: torch.dtype, tick: Tick) -> Named:
        for done, job in enumerate(jobs):
            tick(done, len(jobs), job.targets[0])
            tensor = job.stored.read(job.index)
            is_packed = len(job.targets) > 1
            parts = mcore.unpacked_qkv(tensor, self.spec) if is_packed else (tensor,)
            for name, part in zip(job.targets, parts, strict=True):
                yield name, part.to(torch.float32 if name.startswith("score.") else dtype)
        tick(len(jobs), len(jobs), "")

    def _head(self) -> tuple[tuple[str, ...], tuple[float, ...]]:
        if not self.is_reward:
            return (), ()
        outputs = self._stored[mcore.REWARD_HEAD].shape[0]
        if outputs not in _HEADS:
            line = f"its rm_head has {outputs} outputs; known are {' and '.join(map(str, _HEADS))}"
            raise UserError(f"{self.where}: {line}")
        return _HEADS[outputs]

    def _checked(self, expected: dict[str, tuple[int, ...]]) -> list[mcore.Job]:
        """The jobs in the order of the model's own tensors, every one of which has one."""
        jobs = mcore.plan_jobs(self._stored, self.spec.layers, self.where)
        by_target = {target: job for job in jobs for target in job.targets}
        missing = [n for n in expected if n not in by_target and n != "score.bias"]
        if missing:
            raise UserError(f"{self.where}: the tensor for {missing[0]!r} is missing")
        for job in jobs:
            if any(name not in expected for name in job.targets):
                raise UserError(f"{job.stored.where}: has more layers than the config")
            rows = sum(expected[name][0] for name in job.targets)
            wanted = (rows, *expected[job.targets[0]][1:])
            if job.shape != wanted:
                line = f"has shape {list(job.shape)}, the config asks for {list(wanted)}"
                raise UserError(f"{job.stored.where}: {line}")
        order = {name: place for place, name in enumerate(expected)}
        return sorted(jobs, key=lambda job: order[job.targets[0]])


@contextmanager
def open_nemo(source: Path) -> Iterator[Nemo]:
    """A Nemo over a tar or an unpacked folder.

    Raises UserError for what is not one, or whose model is not a Nemotron decoder.
    """
    with open_archive(source) as archive:
        yield Nemo(archive)


def _config(archive: Archive) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        raise UserError("reading a .nemo needs PyYAML: pip install 'flywright[nemo]'") from None
    try:
        config = yaml.safe_load(archive.read(_CONFIG))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{archive.where}: {_CONFIG}: not valid YAML: {line}") from None
    if not isinstance(config, dict):
        raise UserError(f"{archive.where}: {_CONFIG}: not a table of settings")
    return config


def _tensors(archive: Archive) -> dict[str, StoredTensor]:
    """The tensors, by whichever of the two layouts the archive has."""
    if f"{_WEIGHTS}.metadata" in archive.names:
        return torch_dist_tensors(archive, _WEIGHTS)
    if any(name.startswith(_WEIGHTS) and name.endswith("/.zarray") for name in archive.names):
        return zarr_tensors(archive, _WEIGHTS)
    raise UserError(
        f"{archive.where}: holds no {_WEIGHTS} as zarr or torch_dist; older checkpoints "
        "(model_weights.ckpt) have to be saved anew by NeMo"
    )
