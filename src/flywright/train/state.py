"""Training state on disk: masters, optimizer moments, step and consumed samples.

Nobody's business but train's, and separate from weights. Two folders are kept, the newest whole one
is resumed; a torn write is never seen because a folder is renamed into place.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from flywright.files import atomic_folder

KEPT = 2


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done, samples and tokens consumed."""

    step: int = 0
    samples: int = 0
    tokens: int = 0


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("step-*") if path.is_dir())


def save_state(root: Path, progress: Progress, tensors: dict[str, torch.Tensor]) -> None:
    """Write step-NNNNNNNN under `root` and drop all but the newest two."""
    with atomic_folder(root / f"step-{progress.step:08d}") as folder:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            folder / "state.safetensors",
        )
        (folder / "progress.json").write_text(json.dumps(asdict(progress)))
    for old in _folders(root)[:-KEPT]:
        shutil.rmtree(old)


def load_state(root: Path) -> tuple[Progress, dict[str, torch.Tensor]] | None:
    """The newest state under `root`, or None where there is none."""
    folders = _folders(root)
    if not folders:
        return None
    progress = Progress(**json.loads((folders[-1] / "progress.json").read_text()))
    return progress, load_file(folders[-1] / "state.safetensors")


def remove_state(root: Path) -> None:
    """Forget all states: the step is finished and its weights are saved."""
    shutil.rmtree(root, ignore_errors=True)
