"""The one training loop: every objective, exact resume, micro-batches, metrics.

A killed run that calls `fit` again with the same arguments goes on from its newest state and ends
with the same weights, bit for bit (HOUSE law 4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch.utils.checkpoint import checkpoint

from flywright.data.batch import Batch, Sample, collate, micro_batches, total_tokens
from flywright.data.loader import Loader
from flywright.plan import peak_flops
from flywright.progress import ALARM, Tick, silent
from flywright.train.alarms import Watch
from flywright.train.guards import refuse_not_finite
from flywright.train.meter import Meter, open_sinks, seconds_at_peak
from flywright.train.objectives.base import Model, Objective
from flywright.train.optim import MasterOptimizer
from flywright.train.schedule import learning_rate, steps_of
from flywright.train.settings import TrainSettings
from flywright.train.state import Progress, States

Hook = tuple[Callable[[int], bool], Callable[[Model, int], None]]


@dataclass(frozen=True)
class Fitted:
    """What a finished training says of itself: steps, samples, tokens, the last metrics, alarms."""

    steps: int
    samples: int
    tokens: int
    last: dict[str, float]
    alarms: tuple[str, ...] = ()


def fit(
    model: Model,
    loader: Loader,
    objective: Objective,
    settings: TrainSettings,
    folder: Path,
    *,
    validation: Sequence[Sample] = (),
    hooks: Sequence[Hook] = (),
    tick: Tick = silent,
) -> Fitted:
    """Train `model` in place; `folder` gets metrics.jsonl, and state/ while it runs.

    What is trained is left in fp32, with the master weights: what is saved is not rounded. With
    `validation` samples their loss is taken at each checkpoint and at the end, and the weights of
    the least one are those that the model is left with.

    hooks: (when(step), call(model, step)) pairs, called after a step. Raises GuardError when the
    loss is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = MasterOptimizer(model, settings)  # before anything is rounded
    _prepare(model, settings)
    optimizer.write_to_model()  # a head that stays precise is the masters' own
    total = settings.samples or max(1, round(settings.epochs * len(loader)))
    sizes = steps_of(settings, total)
    values: dict[str, float] = {}
    with States(folder / "state", settings.keep_states) as states:
        progress = _resume(optimizer, states)
        meter = Meter(folder / "metrics.jsonl", progress.step, open_sinks(settings.log_to, folder))
        watch = Watch()
        alarms = [told for line in meter.earlier for told in watch.alarms(line["step"], line)]
        for step in range(progress.step, len(sizes)):
            with meter.time("data"):
                samples = loader.take(progress.samples, sizes[step])
                batches = _batches(model, samples, settings)
            rate = learning_rate(settings, step, progress.samples, total)
            values = _train_step(model, batches, objective, optimizer, (rate, settings.clip), meter)
            tokens = total_tokens(samples)
            progress = progress.after(len(samples), tokens)
            ends = progress.step == len(sizes)
            if ends or progress.step % settings.checkpoint_every_steps == 0:
                if validation:
                    with meter.time("validation"):
                        loss = _validate(objective, model, _batches(model, validation, settings))
                    values["validation_loss"] = loss
                    if progress.best is None or loss < progress.best:
                        progress = replace(progress, best=loss)
                        states.save(progress, optimizer.state(), best=True)
                if not ends:
                    states.save(progress, optimizer.state())
            line = {"tokens": progress.tokens, **values, "learning_rate": rate}
            at_peak = seconds_at_peak(model.spec, batches, _peak(model), settings.lora is not None)
            speed = meter.log(progress.step, tokens, line, at_peak)
            for told in watch.alarms(progress.step, values):
                alarms.append(told)
                tick(progress.step, len(sizes), ALARM + told)
            for when, call in hooks:
                if when(progress.step):
                    call(model, progress.step)
            tick(progress.step, len(sizes), f"loss {values['loss']:.4f}, {speed:,.0f} tokens/s")
        meter.close()
        if validation:
            optimizer.load_masters(states.best())
    optimizer.release()
    return Fitted(progress.step, progress.samples, progress.tokens, values, tuple(alarms))


def _prepare(model: Model, settings: TrainSettings) -> None:
    """The dtype that is computed in, but for a head that stays precise; and recomputing layers."""
    model.to(torch.bfloat16 if settings.precision == "bf16" else torch.float32)
    score = getattr(model, "score", None)
    if score is not None:
        score.float()
    for layer in model.model.layers if settings.recompute else ():
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def _peak(model: Model) -> float:
    parameter = model.model.embed_tokens.weight
    return peak_flops(parameter.device.type, parameter.dtype == torch.bfloat16)


def _resume(optimizer: MasterOptimizer, states: States) -> Progress:
    found = states.newest()
    if found is None:
        return Progress()
    progress, tensors = found
    optimizer.load_state(tensors)
    return progress


def _batches(model: Model, samples: Sequence[Sample], settings: TrainSettings) -> list[Batch]:
    device = model.model.embed_tokens.weight.device
    groups = micro_batches(samples, settings.micro_batch_tokens)
    return [collate(group).to(device) for group in groups]


@torch.no_grad()
def _validate(objective: Objective, model: Model, batches: Sequence[Batch]) -> float:
    """The objective's mean loss over samples that are not trained on."""
    losses = [objective.loss(objective.outputs(model, batch), batch)[0] for batch in batches]
    count = sum(objective.count(batch) for batch in batches) or 1.0
    return sum(float(loss) for loss in losses) / count


def _train_step(
    model: Model,
    batches: Sequence[Batch],
    objective: Objective,
    optimizer: MasterOptimizer,
    rate_and_clip: tuple[float, float],
    meter: Meter,
) -> dict[str, float]:
    """One global batch: accumulate micro-batches, normalised by the whole batch's count."""
    count = sum(objective.count(batch) for batch in batches) or 1.0  # no label: nothing to learn
    sums: dict[str, float] = {"loss": 0.0}
    for batch in batches:
        with meter.time("forward"):
            loss, metrics = objective.loss(objective.outputs(model, batch), batch)
            refuse_not_finite(loss.item(), meter.step)
        with meter.time("backward"):
            (loss / count).backward()
            optimizer.collect()
        for name, value in {"loss": loss.detach(), **metrics}.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    means = {name: value / count for name, value in sums.items()}
    if meter.step == 0:
        objective.start(means, model.model.embed_tokens.weight.dtype)
    with meter.time("step"):
        norm = optimizer.step(*rate_and_clip)
    refuse_not_finite(norm, meter.step)
    means |= objective.health(means)
    told = {name: value for name, value in means.items() if not name.startswith("_")}
    return {**told, "grad_norm": norm}
