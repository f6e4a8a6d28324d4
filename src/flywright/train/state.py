"""Training state on disk: masters, optimizer moments, step and consumed samples.

Nobody's business but train's, and separate from weights. Each rank writes its own part
(torch.distributed.checkpoint), and any other mesh reads it. A folder is written beside the training
and renamed when whole; the newest few are kept, and the best one where there is a validation.
"""

import json
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import filesystem, state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException

from flywright.errors import FlywrightError
from flywright.files import fsync_tree, named_disk_errors, remove_leftovers, write_json
from flywright.parallel import Ranks

Tensors = dict[str, torch.Tensor]
_STEP, _BEST = "step", "best"  # kinds of states: KIND-NNNNNNNN
_UNREADABLE = (CheckpointException, OSError, ValueError, TypeError, KeyError)


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done, samples and tokens consumed; the best validation loss."""

    step: int = 0
    samples: int = 0
    tokens: int = 0
    best: float | None = None

    def after(self, samples: int, tokens: int) -> "Progress":
        consumed = {"samples": self.samples + samples, "tokens": self.tokens + tokens}
        return replace(self, step=self.step + 1, **consumed)


class States:
    """The states of one training, under `root`; use as a context manager.

    What is saved is copied at once and written by a thread; an error of that (disk full) is raised
    at the next save, or at the end. The states before it stay as they are.
    """

    def __init__(self, root: Path, kept: int, ranks: Ranks | None = None):
        self._root, self._kept = root, kept
        self._ranks = ranks or Ranks()
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[None] | None = None
        # the thread's own: its meetings must not mix with the training's
        self._group: Any = self._ranks.mesh and dist.new_group(backend="gloo")

    def __enter__(self) -> "States":
        if self._ranks.first and self._root.exists():
            remove_leftovers(self._root)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self._writer.shutdown(wait=kind is None or self._group is None)
        if kind is None:
            self.settle()

    def settle(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def save(self, progress: Progress, tensors: Tensors, *, best: bool = False) -> None:
        """Write step-NNNNNNNN, and drop all but the newest few; or the least validation loss's."""
        self.settle()
        name = f"{_BEST if best else _STEP}-{progress.step:08d}"
        copied = {key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}
        self._writing = self._writer.submit(self._write, name, progress, copied)

    def _write(self, name: str, progress: Progress, tensors: Tensors) -> None:
        target, folder = self._root / name, self._root / f".{name}.tmp"
        with named_disk_errors(target):
            try:
                self._one(lambda: shutil.rmtree(folder, ignore_errors=True))
                _write_tensors(tensors, folder, self._group)
                self._one(lambda: self._finish(target, folder, progress))
            finally:
                if self._group is None:
                    shutil.rmtree(folder, ignore_errors=True)

    def _one(self, act: Callable[[], None]) -> None:
        """The first rank acts; the others wait for it."""
        if self._ranks.first:
            act()
        if self._group is not None:
            dist.barrier(self._group)

    def _finish(self, target: Path, folder: Path, progress: Progress) -> None:
        write_json(folder / "progress.json", asdict(progress))
        fsync_tree(folder)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
        kind = target.name.partition("-")[0]
        for old in self._folders(kind)[: -1 if kind == _BEST else -self._kept]:
            shutil.rmtree(old)

    def _folders(self, kind: str) -> list[Path]:
        return sorted(path for path in self._root.glob(f"{kind}*") if path.is_dir())

    def read_newest(self, tensors: Tensors) -> Progress | None:
        """Fill `tensors` from the newest whole state; None where there is no state.

        One that cannot be read (a torn disk) is passed over. Raises FlywrightError where none can.
        """
        folders = self._ranks.agreed(self._folders(_STEP))
        for folder in reversed(folders):
            try:
                return _read(folder, tensors)
            except _UNREADABLE:
                continue
        if folders:
            line = f"{self._root}: no state of it can be read; remove it to begin anew"
            raise FlywrightError(line)
        return None

    def read_best(self, tensors: Tensors) -> None:
        self.settle()
        try:
            _read(self._ranks.agreed(self._folders(_BEST))[-1], tensors)
        except (*_UNREADABLE, IndexError) as error:
            line = f"{self._root}: its best state cannot be read ({error}); remove it to begin anew"
            raise FlywrightError(line) from None


def _write_tensors(tensors: Tensors, folder: Path, group: dist.ProcessGroup | None) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no process group: one process
            writer = filesystem.FileSystemWriter(folder, sync_files=False)
            state_dict_saver.save(
                tensors, storage_writer=writer, process_group=group, no_dist=group is None
            )
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from None


def _read(folder: Path, tensors: Tensors) -> Progress:
    progress = Progress(**json.loads((folder / "progress.json").read_text()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state_dict_loader.load(tensors, checkpoint_id=folder, no_dist=not dist.is_initialized())
    return progress


def remove_state(root: Path) -> None:
    """Forget all states: the step is finished and its weights are saved."""
    shutil.rmtree(root, ignore_errors=True)
