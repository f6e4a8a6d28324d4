"""What training tells of itself, one JSON object a step in metrics.jsonl.

A resumed run first drops the lines after the state it resumes from, so each step stands there once.
"""

import json
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from flywright.data.batch import Batch
from flywright.errors import UserError
from flywright.files import named_disk_errors, write_text
from flywright.spec import ModelSpec
from flywright.train.alarms import Watch

Sink = Callable[[int, dict[str, Any]], None]


class Meter:
    """Appends to metrics.jsonl in `folder` (and to sinks by name), watches for alarms, and knows
    where the time of a step goes. Without a folder it only measures: the first rank alone writes.

    `step` is how many were logged; `alarms` are all so far, of before a resume too. Raises
    UserError where a sink's package is not installed.
    """

    def __init__(self, folder: Path | None, from_step: int, log_to: Sequence[str] = ()):
        self._path, self.step = folder and folder / "metrics.jsonl", from_step
        earlier = _lines_until(self._path, from_step) if self._path else []
        self._watch = Watch()
        self.alarms = [told for line in earlier for told in self._watch.alarms(line["step"], line)]
        self._sinks = _open_sinks(log_to, folder) if folder else []
        self._stream = self._path.open("a", encoding="utf-8") if self._path else None
        self._parts: dict[str, float] = {}
        self._clock = time.perf_counter()

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Add what happens within to `part`_seconds of the step. An accelerator works behind: there
        a part is what it takes to ask for it, but for the step as a whole.
        """
        start = time.perf_counter()
        yield
        self._parts[part] = self._parts.get(part, 0.0) + time.perf_counter() - start

    def log(
        self, step: int, tokens_in_step: int, values: dict[str, Any], at_peak: dict[str, float]
    ) -> tuple[float, list[str]]:
        """Write one step's line; returns its tokens a second, and the alarms that it rings.

        at_peak: "mfu" and "mfu_causal" -> seconds that the step's FLOPs take at the device's peak.
        """
        self.step = step
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        speed = tokens_in_step / (seconds - self._parts.get("validation", 0.0))
        line = {"step": step, **values, "seconds": round(seconds, 4)}
        line |= {f"{part}_seconds": round(spent, 4) for part, spent in self._parts.items()}
        line |= {"tokens_per_second": round(speed, 1), "memory_bytes": peak_memory()}
        line |= {name: round(least / seconds, 4) for name, least in at_peak.items()}
        self._parts = {}
        if self._stream and self._path:
            with named_disk_errors(self._path):
                self._stream.write(json.dumps(line, allow_nan=False) + "\n")
                self._stream.flush()
        for sink in self._sinks:
            sink(step, line)
        rung = list(self._watch.alarms(step, values))
        self.alarms += rung
        return speed, rung

    def close(self) -> None:
        if self._stream:
            self._stream.close()


def _lines_until(path: Path, step: int) -> list[dict[str, Any]]:
    """The lines of steps up to `step`; the file holds no others then."""
    if not path.exists():
        return []
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    kept = {line: told for line in whole if (told := json.loads(line))["step"] <= step}
    write_text(path, "".join(line + "\n" for line in kept))
    return list(kept.values())


def seconds_at_peak(
    spec: ModelSpec, batches: Sequence[Batch], peak: float, lora: bool
) -> dict[str, float]:
    """Forward and backward over documents as they are packed, attention in full ("mfu") and causal
    ("mfu_causal", SPEC 3.4), at `peak` FLOP/s; nothing where the peak is not known (0).

    The head counts where a token is predicted; what only fills a batch up is no work. Beside
    adapters weights need no gradient.
    """
    if not peak:
        return {}
    tokens = sum(batch.ids_N.numel() - batch.filled for batch in batches)
    predicted = sum(batch.trained_tokens for batch in batches)
    head = spec.hidden_size * spec.vocab_size * predicted
    dense = (4 if lora else 6) * (spec.non_embedding_parameters * tokens + head)
    full = causal = 0
    for batch in batches:
        count = len(batch.lengths) - (batch.filled > 0)
        for length, parent in zip(batch.lengths[:count], batch.parents, strict=False):
            before = batch.lengths[parent] if parent >= 0 else 0
            full += length * (before + length)
            causal += length * before + length * (length + 1) // 2
    attention = 12 * spec.layers * spec.heads * spec.head_dim
    return {
        "mfu": (dense + attention * full) / peak,
        "mfu_causal": (dense + attention * causal) / peak,
    }


def peak_memory() -> int:
    """Most bytes that the process has held: the accelerator's, where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _open_sinks(names: Sequence[str], folder: Path) -> list[Sink]:
    try:
        return [{"tensorboard": _tensorboard, "wandb": _wandb}[name](folder) for name in names]
    except ImportError as error:
        raise UserError(f"log_to: no {error.name}: pip install 'flywright[log]'") from None


def _tensorboard(folder: Path) -> Sink:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))

    def sink(step: int, line: dict[str, Any]) -> None:
        for name, value in line.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return sink


def _wandb(folder: Path) -> Sink:
    import wandb  # type: ignore

    run = wandb.init(project="flywright", name=folder.name, dir=str(folder), resume="allow")
    return lambda step, line: run.log(line, step=step)
