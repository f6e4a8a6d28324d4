"""The one training loop: every objective, exact resume, micro-batches, metrics.

A killed run that calls `fit` again with the same arguments goes on from its newest state and ends
with the same weights, bit for bit (HOUSE law 4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from flywright.data.batch import Batch, Sample, total_tokens
from flywright.data.loader import Loader
from flywright.errors import PhaseEnds, Preempted
from flywright.parallel import Preemption, Ranks, Watchdog
from flywright.progress import ALARM, Tick, silent
from flywright.train.guards import refuse_not_finite
from flywright.train.meter import Meter, seconds_at_peak
from flywright.train.objectives.base import Model, Objective
from flywright.train.optim import MasterOptimizer
from flywright.train.passes import Passes
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
    model: Model | Sequence[Model],
    loader: Loader,
    objective: Objective,
    settings: TrainSettings,
    folder: Path,
    *,
    ranks: Ranks | None = None,
    ramped: bool = False,
    validation: Sequence[Sample] = (),
    hooks: Sequence[Hook] = (),
    tick: Tick = silent,
) -> Fitted:
    """Train `model` in place; `folder` gets metrics.jsonl, and state/ while it runs.

    Over a mesh `model` is this rank's chunks, as parallel.apply_pipeline makes them of fp32
    weights, and all ranks call this together. What is trained is left in fp32, with the master
    weights: what is saved is not rounded. With `validation` samples their loss is taken at each
    checkpoint and at the end, and the weights of the least one are those that the model is left
    with. `ramped`: dp follows the mesh's dp_ramp as samples are consumed.

    hooks: (when(step), call(model, step)) pairs, called after a step. Raises GuardError when the
    loss is not finite; Preempted and PhaseEnds after saving the state.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ranks = ranks or Ranks()
    parts = [model] if isinstance(model, Model) else list(model)
    optimizer = MasterOptimizer(parts, settings, ranks)  # before anything is rounded
    prepare(parts, settings, alone=ranks.mesh is None)
    optimizer.write_to_model()  # a head that stays precise is the masters' own
    passes = Passes(parts, settings.micro_batch_tokens, ranks, settings.precision == "bf16")
    total = settings.samples or max(1, round(settings.epochs * len(loader)))
    sizes, peak = steps_of(settings, total), passes.peak
    values: dict[str, float] = {}
    preemption, watchdog = Preemption(), Watchdog(ranks.spec.timeout_seconds)
    with preemption, States(folder / "state", settings.keep_states, ranks) as states:
        progress = states.read_newest(optimizer.state()) or Progress()
        if other := _other_phase(ranks, progress, ramped):
            raise other
        optimizer.write_to_model()
        meter = Meter(folder if ranks.first else None, progress.step, settings.log_to)
        for step in range(progress.step, len(sizes)):
            rate = learning_rate(settings, step, progress.samples, total)
            with watchdog.step(step):
                with meter.time("data"):
                    samples = loader.take(progress.samples, sizes[step])
                    batches = passes.batches(passes.groups(samples))
                how = rate, settings.clip
                values = _train_step(passes, batches, objective, optimizer, how, meter)
            tokens = total_tokens(samples)
            progress = progress.after(len(samples), tokens)
            ends = progress.step == len(sizes)
            is_saved = not ends and progress.step % settings.checkpoint_every_steps == 0
            if validation and (ends or is_saved):
                with watchdog.step(step), meter.time("validation"):
                    loss = values["validation_loss"] = _validate(objective, passes, validation)
                if progress.best is None or loss < progress.best:
                    progress = replace(progress, best=loss)
                    states.save(progress, optimizer.state(), best=True)
            if is_saved:
                with watchdog.step(step):
                    states.save(progress, optimizer.state())
            line = {"tokens": progress.tokens, **values, "learning_rate": rate}
            at_peak = seconds_at_peak(parts[0].spec, batches, peak, settings.lora is not None)
            speed, rung = meter.log(progress.step, tokens, line, at_peak)
            for told in rung:
                tick(progress.step, len(sizes), ALARM + told)
            for when, call in hooks:
                if when(progress.step):
                    call(parts[0], progress.step)
            tick(progress.step, len(sizes), f"loss {values['loss']:.4f}, {speed:,.0f} tokens/s")
            with watchdog.step(step):  # others may hang where these meet, too
                wanted = _other_phase(ranks, progress, ramped)
                if wanted is None and ranks.anyone(preemption.wanted):
                    wanted = Preempted(progress.step)
                if wanted and not ends:
                    if not is_saved:
                        states.save(progress, optimizer.state())
                    states.settle()
                    raise wanted
        meter.close()
        if validation:
            states.read_best(optimizer.weights())
    optimizer.release()
    return Fitted(progress.step, progress.samples, progress.tokens, values, tuple(meter.alarms))


def _other_phase(ranks: Ranks, progress: Progress, ramped: bool) -> PhaseEnds | None:
    """That the ranks stop here, all of them, and others in another number go on from the state."""
    dp = ranks.spec.phase(progress.samples).dp if ramped else ranks.spec.dp
    return None if dp == ranks.size("dp") else PhaseEnds(progress.step, progress.samples, dp)


def prepare(parts: Sequence[Model], settings: TrainSettings, alone: bool) -> None:
    """The dtype that is computed in, but for a head that stays precise; and recomputing layers.

    Over a mesh the shards stay as they are, and what is gathered of them is rounded.
    """
    for model in parts:
        if alone and settings.precision == "bf16":
            score = getattr(model, "score", None)
            model.to(torch.bfloat16)
            if score is not None:
                score.float()
        elif alone and next(model.parameters()).dtype != torch.float64:
            model.to(torch.float32)
        for layer in model.model.layers if settings.recompute else ():
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


@torch.no_grad()
def _validate(objective: Objective, passes: Passes, samples: Sequence[Sample]) -> float:
    """The objective's mean loss over samples that are not trained on."""
    sums = {"loss": 0.0, "count": 0.0}

    def share(model: Model, batch: Batch, hidden_ND: Tensor) -> Tensor:
        loss = objective.loss(objective.outputs(model, batch, hidden_ND), batch)[0]
        sums["loss"] += float(loss)
        sums["count"] += objective.count(batch)
        return loss

    for _ in passes.over(samples, share):
        pass
    means = passes.ranks.summed(sums)
    return means["loss"] / (means["count"] or 1.0)


def _train_step(
    passes: Passes,
    batches: Sequence[Batch],
    objective: Objective,
    optimizer: MasterOptimizer,
    rate_and_clip: tuple[float, float],
    meter: Meter,
) -> dict[str, float]:
    """One global batch: accumulate micro-batches, normalised by the whole batch's count."""
    own = sum(objective.count(batch) for batch in batches)
    count = passes.ranks.summed({"count": own})["count"] or 1.0  # no label: nothing to learn
    sums: dict[str, float] = {"loss": 0.0}

    def share(model: Model, batch: Batch, hidden_ND: Tensor) -> Tensor:
        loss, metrics = objective.loss(objective.outputs(model, batch, hidden_ND), batch)
        for name, value in {"loss": loss.detach(), **metrics}.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        return loss / count

    passes.run(batches, share, optimizer.collect, meter)
    means = {name: value / count for name, value in passes.ranks.summed(sums).items()}
    refuse_not_finite(means["loss"], meter.step)
    if meter.step == 0:
        objective.start(means, passes.computes_in)
    with meter.time("step"):
        norm = optimizer.step(*rate_and_clip)
    refuse_not_finite(norm, meter.step)
    told = means | objective.health(means) | {"grad_norm": norm}
    return {name: value for name, value in told.items() if not name.startswith("_")}
