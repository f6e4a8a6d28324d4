"""Checkpoints: the newest few are kept, torn ones passed over, a full disk leaves the last good."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint import filesystem

from flywright.data.batch import Sample
from flywright.data.loader import Shuffled
from flywright.errors import FlywrightError
from flywright.model import Decoder
from flywright.train.loop import fit
from flywright.train.objectives import sft
from flywright.train.settings import TrainSettings
from flywright.train.state import Progress, States, remove_state


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"master.w": torch.full((4,), value)}


def newest(root) -> tuple[Progress | None, torch.Tensor]:
    found = tensors(-7.0)
    return States(root, 3).read_newest(found), found["master.w"]


def samples(count: int, seed: int) -> list[Sample]:
    generator = np.random.default_rng(seed)
    ids = [generator.integers(0, 400, 12) for _ in range(count)]
    return [Sample((i,), (np.ones(len(i), dtype=bool),)) for i in ids]


def test_the_newest_are_kept_and_what_is_saved_is_a_copy(tmp_path):
    moving = tensors(0.0)
    with States(tmp_path, kept=3) as states:
        for step in range(1, 6):
            moving["master.w"].fill_(step)
            states.save(Progress(step), moving)
            moving["master.w"].fill_(-1)  # training goes on while the thread writes
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        f"step-{step:08d}" for step in (3, 4, 5)
    ]
    progress, found = newest(tmp_path)
    assert progress == Progress(5) and found.tolist() == [5.0] * 4


@pytest.mark.parametrize("harm", ["cut", "empty", "no progress", "no plan"])
def test_a_torn_state_is_passed_over(tmp_path, harm):
    with States(tmp_path, kept=2) as states:
        states.save(Progress(1), tensors(1.0))
        states.save(Progress(2), tensors(2.0))
    for number, step in enumerate((2, 1)):
        folder = tmp_path / f"step-{step:08d}"
        path = folder / {"no progress": "progress.json", "no plan": ".metadata"}.get(
            harm, "__0_0.distcp"
        )
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2 if harm == "cut" else 0])
        if number == 0:
            progress, found = newest(tmp_path)
            assert progress == Progress(1) and found.tolist() == [1.0] * 4
    with pytest.raises(FlywrightError, match="no state of it can be read; remove it"):
        newest(tmp_path)


def test_a_full_disk_is_told_and_the_last_good_state_stays(tmp_path, monkeypatch):
    def full(self, plan, planner):
        raise OSError(28, "No space left on device")

    with pytest.raises(FlywrightError, match="No space left"), States(tmp_path, 2) as states:
        states.save(Progress(1), tensors(1.0))
        states.settle()
        monkeypatch.setattr(filesystem.FileSystemWriter, "write_data", full)
        states.save(Progress(2), tensors(2.0))
    assert newest(tmp_path)[0] == Progress(1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_the_best_state_stays_until_a_better_one_is_whole(tmp_path, monkeypatch):
    """Killed between the two: the earlier one is there, and a resumed run ends with some best."""
    with States(tmp_path, 2) as states:
        states.save(Progress(1), tensors(1.0), best=True)
    with (
        monkeypatch.context() as patched,
        pytest.raises(FlywrightError),
        States(tmp_path, 2) as two,
    ):
        patched.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        two.save(Progress(2), tensors(2.0), best=True)
    found = tensors(0.0)
    with States(tmp_path, 2) as states:
        states.read_best(found)
        assert torch.equal(found["master.w"], tensors(1.0)["master.w"])
        states.save(Progress(3), tensors(3.0), best=True)
        states.read_best(found)
    assert torch.equal(found["master.w"], tensors(3.0)["master.w"])
    assert [path.name for path in tmp_path.iterdir()] == ["best-00000003"]


def test_the_best_weights_are_those_of_the_least_validation_loss(tiny_spec, tmp_path):
    """A rate far too high: the model first learns, then is driven away."""
    train, held = samples(12, 0), samples(6, 0)  # the same: what is learned shows in the loss
    settings = TrainSettings(
        learning_rate=0.3, schedule="constant", warmup_steps=30, batch_size=4, epochs=12,
        precision="fp32", checkpoint_every_steps=3, clip=1e9,
    )  # fmt: skip
    model = Decoder(tiny_spec, seed=0)
    fit(model, Shuffled(train, 0), sft(), settings, tmp_path, validation=held)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    told = {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}
    assert list(told) == list(range(3, 37, 3))
    best = min(told, key=told.__getitem__)
    assert best not in (3, 36), told
    again = Decoder(tiny_spec, seed=0)
    stop_there = settings.model_copy(update={"samples": best * 4})
    fit(again, Shuffled(train, 0), sft(), stop_there, tmp_path / "again")
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    remove_state(tmp_path / "state")
    assert not (tmp_path / "state").exists()
