"""The one training loop: every objective, exact resume, micro-batches, metrics.

A killed run that calls `fit` again with the same arguments goes on from its newest state and ends
with the same weights, bit for bit (HOUSE law 4).
"""

from collections.abc import Callable, Iterator, Sequence
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
    parts = [model] if isinstance(model, Model) else list(model)
    run = _Run(parts, loader, objective, settings, folder, ranks or Ranks(), ramped, validation)
    with run.preemption, run.states:
        run.resume()
        while run.progress.step < len(run.sizes):
            run.train()
            run.checkpoint()
            for note in run.told():
                tick(run.progress.step, len(run.sizes), note)
            for when, call in hooks:
                if when(run.progress.step):
                    call(parts[0], run.progress.step)
            run.leave_if_wanted()
        run.end()
    done, alarms = run.progress, tuple(run.meter.alarms)
    return Fitted(done.step, done.samples, done.tokens, run.values, alarms)


class _Run:
    """One training: what it works with, how far it is, and its last step."""

    def __init__(
        self,
        parts: Sequence[Model],
        loader: Loader,
        objective: Objective,
        settings: TrainSettings,
        folder: Path,
        ranks: Ranks,
        ramped: bool,
        validation: Sequence[Sample],
    ):
        self._loader, self._objective, self._settings = loader, objective, settings
        self._folder, self._ranks, self._ramped = folder, ranks, ramped
        self._validation = validation
        self._optimizer = MasterOptimizer(parts, settings, ranks)  # before anything is rounded
        prepare(parts, settings, alone=ranks.mesh is None)
        self._optimizer.write_to_model()  # a head that stays precise is the masters' own
        bf16 = settings.precision == "bf16"
        self._passes = Passes(parts, settings.micro_batch_tokens, ranks, bf16)
        self._peak = self._passes.peak
        self._total = settings.samples or max(1, round(settings.epochs * len(loader)))
        self.sizes = steps_of(settings, self._total)
        self.values: dict[str, float] = {}
        self.preemption, self._watchdog = Preemption(), Watchdog(ranks.spec.timeout_seconds)
        self.states = States(folder / "state", settings.keep_states, ranks)

    def resume(self) -> None:
        """Go on from the newest state, if there is one."""
        self.progress = self.states.read_newest(self._optimizer.state()) or Progress()
        if other := self._other_phase():
            raise other
        self._optimizer.write_to_model()
        folder = self._folder if self._ranks.first else None
        self.meter = Meter(folder, self.progress.step, self._settings.log_to)

    def train(self) -> None:
        """One step: a global batch, forward and backward, and the update."""
        self._step, consumed = self.progress.step, self.progress.samples
        self._rate = learning_rate(self._settings, self._step, consumed, self._total)
        with self._watchdog.step(self._step):
            with self.meter.time("data"):
                samples = self._loader.take(consumed, self.sizes[self._step])
                self._batches = self._passes.batches(self._passes.groups(samples))
            self.values = self._updated()
        self._tokens = total_tokens(samples)
        self.progress = self.progress.after(len(samples), self._tokens)

    def _updated(self) -> dict[str, float]:
        """Accumulate micro-batches, normalised by the whole batch's count, and update; metrics."""
        objective, passes, sums = self._objective, self._passes, {"loss": 0.0}
        own = sum(objective.count(batch) for batch in self._batches)
        count = self._ranks.summed({"count": own})["count"] or 1.0  # no label: nothing to learn

        def share(model: Model, batch: Batch, hidden_ND: Tensor) -> Tensor:
            loss, metrics = objective.loss(objective.outputs(model, batch, hidden_ND), batch)
            for name, value in {"loss": loss.detach(), **metrics}.items():
                sums[name] = sums.get(name, 0.0) + float(value)
            return loss / count

        passes.run(self._batches, share, self._optimizer.collect, self.meter)
        means = {name: value / count for name, value in self._ranks.summed(sums).items()}
        refuse_not_finite(means["loss"], self._step)
        if self._step == 0:
            objective.start(means, passes.computes_in)
        with self.meter.time("step"):
            norm = self._optimizer.step(self._rate, self._settings.clip)
        refuse_not_finite(norm, self._step)
        told = means | objective.health(means) | {"grad_norm": norm}
        return {name: value for name, value in told.items() if not name.startswith("_")}

    def checkpoint(self) -> None:
        """Validate and save, if it is time; at the end what is saved is the caller's."""
        ends = self.progress.step == len(self.sizes)
        self._is_due = ends or self.progress.step % self._settings.checkpoint_every_steps == 0
        if self._is_due and self._validation:
            with self._watchdog.step(self._step), self.meter.time("validation"):
                loss = self.values["validation_loss"] = self._validated()
            if self.progress.best is None or loss < self.progress.best:
                self.progress = replace(self.progress, best=loss)
                self.states.save(self.progress, self._optimizer.state(), best=True)
        if self._is_due and not ends:
            with self._watchdog.step(self._step):
                self.states.save(self.progress, self._optimizer.state())

    @torch.no_grad()
    def _validated(self) -> float:
        """The objective's mean loss over samples that are not trained on."""
        objective, sums = self._objective, {"loss": 0.0, "count": 0.0}

        def share(model: Model, batch: Batch, hidden_ND: Tensor) -> Tensor:
            loss = objective.loss(objective.outputs(model, batch, hidden_ND), batch)[0]
            sums["loss"] += float(loss)
            sums["count"] += objective.count(batch)
            return loss

        for _ in self._passes.over(self._validation, share):
            pass
        means = self._ranks.summed(sums)
        return means["loss"] / (means["count"] or 1.0)

    def told(self) -> Iterator[str]:
        """Write the step's line of metrics; its alarms, and a line of progress."""
        line = {"tokens": self.progress.tokens, **self.values, "learning_rate": self._rate}
        spec, lora = self._passes.parts[0].spec, self._settings.lora is not None
        at_peak = seconds_at_peak(spec, self._batches, self._peak, lora)
        speed, rung = self.meter.log(self.progress.step, self._tokens, line, at_peak)
        yield from (ALARM + alarm for alarm in rung)
        yield f"loss {self.values['loss']:.4f}, {speed:,.0f} tokens/s"

    def leave_if_wanted(self) -> None:
        """Save and raise where all ranks are to stop here and others go on from the state."""
        with self._watchdog.step(self._step):  # others may hang where these meet, too
            wanted = self._other_phase()
            if wanted is None and self._ranks.anyone(self.preemption.wanted):
                wanted = Preempted(self.progress.step)
            if wanted and self.progress.step < len(self.sizes):
                if not self._is_due:
                    self.states.save(self.progress, self._optimizer.state())
                self.states.settle()
                raise wanted

    def _other_phase(self) -> PhaseEnds | None:
        spec, done = self._ranks.spec, self.progress
        dp = spec.phase(done.samples).dp if self._ramped else spec.dp
        same = dp == self._ranks.size("dp")
        return None if same else PhaseEnds(done.step, done.samples, dp)

    def end(self) -> None:
        """The weights as `fit` leaves them."""
        self.meter.close()
        if self._validation:
            self.states.read_best(self._optimizer.weights())
        self._optimizer.release()


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
