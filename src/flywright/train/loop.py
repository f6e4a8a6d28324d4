"""The one training loop: every objective, exact resume, micro-batches, metrics.

A killed run that calls `fit` again with the same arguments goes on from its newest state and ends
with the same weights, bit for bit (HOUSE law 4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from flywright.data.batch import Sample, collate, micro_batches, total_tokens
from flywright.data.loader import Loader
from flywright.progress import Tick, silent
from flywright.train.guards import refuse_not_finite
from flywright.train.meter import Meter
from flywright.train.objectives.base import Model, Objective
from flywright.train.optim import MasterOptimizer
from flywright.train.schedule import learning_rate, steps_of
from flywright.train.settings import TrainSettings
from flywright.train.state import Progress, load_state, remove_state, save_state

Hook = tuple[Callable[[int], bool], Callable[[Model, int], None]]


@dataclass(frozen=True)
class Fitted:
    """What a finished training says of itself: steps, samples, tokens, the last metrics."""

    steps: int
    samples: int
    tokens: int
    last: dict[str, float]


def fit(
    model: Model,
    loader: Loader,
    objective: Objective,
    settings: TrainSettings,
    folder: Path,
    *,
    hooks: Sequence[Hook] = (),
    tick: Tick = silent,
) -> Fitted:
    """Train `model` in place; `folder` gets metrics.jsonl, and state/ while it runs.

    The model is left in fp32, with the master weights: what is saved is not rounded.

    hooks: (when(step), call(model, step)) pairs, called after a step. Raises GuardError when the
    loss is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16 if settings.precision == "bf16" else torch.float32)
    _keep_heads_precise(model)
    optimizer = MasterOptimizer(model, settings)
    progress = _resume(optimizer, folder / "state")
    total = settings.samples or max(1, round(settings.epochs * len(loader)))
    sizes = steps_of(settings, total)
    meter = Meter(folder / "metrics.jsonl", progress.step)
    values: dict[str, float] = {}
    for step in range(progress.step, len(sizes)):
        samples = loader.take(progress.samples, sizes[step])
        rate = learning_rate(settings, step, progress.samples, total)
        values = _train_step(model, samples, objective, settings, optimizer, rate, step)
        tokens = total_tokens(samples)
        progress = Progress(step + 1, progress.samples + len(samples), progress.tokens + tokens)
        line = {"tokens": progress.tokens, **values, "learning_rate": rate}
        speed = meter.log(step + 1, tokens, line)
        if progress.step % settings.checkpoint_every_steps == 0 and progress.step < len(sizes):
            save_state(folder / "state", progress, optimizer.state())
        for when, call in hooks:
            if when(progress.step):
                call(model, progress.step)
        tick(progress.step, len(sizes), f"loss {values['loss']:.4f}, {speed:,.0f} tokens/s")
    meter.close()
    optimizer.release()
    return Fitted(progress.step, progress.samples, progress.tokens, values)


def finish(folder: Path) -> None:
    """Drop the training state once the weights are safely saved."""
    remove_state(folder / "state")


def _keep_heads_precise(model: Model) -> None:
    score = getattr(model, "score", None)
    if score is not None:
        score.float()


def _resume(optimizer: MasterOptimizer, root: Path) -> Progress:
    found = load_state(root)
    if found is None:
        return Progress()
    progress, tensors = found
    optimizer.load_state(tensors)
    return progress


def _train_step(
    model: Model,
    samples: list[Sample],
    objective: Objective,
    settings: TrainSettings,
    optimizer: MasterOptimizer,
    rate: float,
    step: int,
) -> dict[str, float]:
    """One global batch: accumulate micro-batches, normalised by the whole batch's count."""
    batches = [collate(group) for group in micro_batches(samples, settings.micro_batch_tokens)]
    count = sum(objective.count(batch) for batch in batches)
    sums: dict[str, float] = {"loss": 0.0}
    for batch in batches:
        loss, metrics = objective.loss(objective.outputs(model, batch), batch)
        refuse_not_finite(loss.item(), step)
        (loss / count).backward()
        optimizer.collect()
        for name, value in {"loss": loss.detach(), **metrics}.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    norm = optimizer.step(rate, settings.clip)
    refuse_not_finite(norm, step)
    return {**{name: value / count for name, value in sums.items()}, "grad_norm": norm}
