"""Training state on disk: masters, optimizer moments, step and consumed samples.

Nobody's business but train's, and separate from weights. A folder is written beside the training
and renamed when whole; the newest few are kept, and the best one where there is a validation.
"""

import json
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from flywright.errors import FlywrightError
from flywright.files import atomic_folder, remove_leftovers

Tensors = dict[str, torch.Tensor]
_BEST = "best"
_UNREADABLE = (OSError, ValueError, TypeError, SafetensorError)


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done, samples and tokens consumed; the best validation loss."""

    step: int = 0
    samples: int = 0
    tokens: int = 0
    best: float | None = None

    def after(self, samples: int, tokens: int) -> "Progress":
        """One step further, which took so many."""
        consumed = {"samples": self.samples + samples, "tokens": self.tokens + tokens}
        return replace(self, step=self.step + 1, **consumed)


class States:
    """The states of one training, under `root`; use as a context manager.

    What is saved is copied at once and written by a thread; an error of that (disk full) is raised
    at the next save, or at the end. The states before it stay as they are.
    """

    def __init__(self, root: Path, kept: int):
        self._root, self._kept = root, kept
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> "States":
        if self._root.exists():
            remove_leftovers(self._root)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self._writer.shutdown(wait=True)
        if kind is None:
            self._wait()

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def save(self, progress: Progress, tensors: Tensors, *, best: bool = False) -> None:
        """Write step-NNNNNNNN, and drop all but the newest few; or the least validation loss's."""
        self._wait()
        name = _BEST if best else f"step-{progress.step:08d}"
        copied = {key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}
        self._writing = self._writer.submit(self._write, name, progress, copied)

    def _write(self, name: str, progress: Progress, tensors: Tensors) -> None:
        with atomic_folder(self._root / name) as folder:
            save_file(tensors, folder / "state.safetensors")
            (folder / "progress.json").write_text(json.dumps(asdict(progress)))
        for old in self._folders()[: -self._kept]:
            shutil.rmtree(old)

    def _folders(self) -> list[Path]:
        return sorted(path for path in self._root.glob("step-*") if path.is_dir())

    def newest(self) -> tuple[Progress, Tensors] | None:
        """The newest whole state, or None; one that cannot be read (a torn disk) is passed over."""
        for folder in reversed(self._folders()):
            try:
                return _read(folder)
            except _UNREADABLE:
                continue
        return None

    def best(self) -> Tensors:
        """The tensors of the step with the least validation loss."""
        self._wait()
        try:
            return _read(self._root / _BEST)[1]
        except _UNREADABLE as error:
            line = (
                f"{self._root / _BEST}: cannot be read ({error}); remove {self._root} to begin anew"
            )
            raise FlywrightError(line) from None


def _read(folder: Path) -> tuple[Progress, Tensors]:
    progress = Progress(**json.loads((folder / "progress.json").read_text()))
    return progress, load_file(folder / "state.safetensors")


def remove_state(root: Path) -> None:
    """Forget all states: the step is finished and its weights are saved."""
    shutil.rmtree(root, ignore_errors=True)
