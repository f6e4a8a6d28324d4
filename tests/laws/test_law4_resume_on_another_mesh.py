"""Law 4 over meshes: what one mesh left, another goes on with, exactly; the paper's ramp of dp.

Loss, metrics and weights equal those of one process that was never stopped: each sample was used
once, and in the same order.
"""

import os
import signal
from pathlib import Path

import pytest
import torch
from over_meshes import (
    OBJECTIVES,
    SPEC,
    TIGHT,
    assert_same_steps,
    over,
    told,
    weights,
)

from flywright.data.loader import Shuffled
from flywright.errors import PhaseEnds, Preempted
from flywright.spec import MeshSpec
from flywright.train.loop import Hook, fit
from flywright.train.settings import TrainSettings
from gloo_ranks import Case, spread

# SPEC 3.3 by 16 and 192: dp 16 -> 32 -> 64, batches of 768 -> 1536 -> 2304
RAMP = MeshSpec(dp=4, zero=1, dp_ramp=[(16, 1), (48, 2)])
SETTINGS = TrainSettings(
    learning_rate=1e-2, schedule="cosine", batch_size=12, batch_ramp=[(16, 4), (48, 8)],
    samples=84, micro_batch_tokens=24, precision="fp32", checkpoint_every_steps=3,
)  # fmt: skip
LAST = 11  # 4 of 4, 4 of 8 and 3 of 12 samples


def _leg(of: str, now: MeshSpec, ramp: MeshSpec, stop_after: int | None, out: Path) -> Case:
    """One job: it goes on where the one before stopped, and stops where it must."""

    def case(_folder: Path) -> None:
        def ask(_model: object, step: int) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)

        given = over(of, SPEC, now, ramp)
        model = given.pop("model")
        hooks: list[Hook] = [(lambda step: step == stop_after, ask)]
        asked = hooks if given["ranks"].place("dp") == given["ranks"].place("tp") == 0 else []
        objective, samples = OBJECTIVES[of]
        ended = None
        try:
            fit(
                model, Shuffled(samples(), 0), objective, SETTINGS, out, hooks=asked,
                ramped=bool(ramp.dp_ramp), **given,
            )  # fmt: skip
        except (Preempted, PhaseEnds) as why:
            ended = type(why)
        assert ended is (Preempted if stop_after else PhaseEnds if now.dp != ramp.dp else None)
        if ended is None:
            if given["ranks"].first:
                assert_same_steps(told(out), told(out.parent / "alone"))
            expected = torch.load(out.parent / "alone.pt")
            for name, weight in weights(model).items():
                torch.testing.assert_close(weight, expected[name], rtol=0, atol=TIGHT)

    return case


def _alone(of: str, out: Path) -> Case:
    def case(_folder: Path) -> None:
        given = over(of, SPEC, MeshSpec())
        objective, samples = OBJECTIVES[of]
        model = given["model"]
        fit(model, Shuffled(samples(), 0), objective, SETTINGS, out / "alone")
        torch.save(weights(model), out / "alone.pt")

    return case


def _walk(of: str, legs: list[tuple[MeshSpec, int | None]], ramp: MeshSpec | None, out: Path):
    for number, (now, stop_after) in enumerate([(MeshSpec(), None), *legs]):
        store = out / str(number)
        store.mkdir()
        job = _leg(of, now, ramp or now, stop_after, out / "run") if number else _alone(of, out)
        spread(job, store, now.ranks)


def test_the_papers_ramp_is_exact(tmp_path):
    """The number of ranks follows the batch: three jobs, each ended by the ramp itself."""
    _walk("lm", [(RAMP.phase(0), None), (RAMP.phase(16), None), (RAMP, None)], RAMP, tmp_path)


@pytest.mark.parametrize("of", ["sft"])
def test_a_mesh_goes_on_where_another_was_stopped(of, tmp_path):
    """SIGUSR1 to one rank: all save and stop, and a quite different mesh reads what they left."""
    legs = [
        (MeshSpec(tp=2), 2), (MeshSpec(pp=2, virtual=2), 4), (MeshSpec(dp=2), 6),
        (MeshSpec(), 8), (MeshSpec(pp=2), None),
    ]  # fmt: skip
    _walk(of, legs, None, tmp_path)


@pytest.mark.slow
def test_a_product_of_all_goes_on_as_another(tmp_path):
    legs = [
        (MeshSpec(pp=2, dp=2, tp=2, virtual=2), 3), (MeshSpec(dp=4, tp=2), 6),
        (MeshSpec(pp=4, dp=2), None),
    ]  # fmt: skip
    _walk("reward", legs, None, tmp_path)
