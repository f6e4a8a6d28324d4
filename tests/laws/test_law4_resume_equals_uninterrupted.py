"""Law 4: a run that is killed with SIGKILL and resumed ends with the same bits."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from flywright.data.batch import Sample
from flywright.data.loader import Shuffled
from flywright.model import Decoder, RewardModel
from flywright.train import lora
from flywright.train.loop import fit
from flywright.train.objectives import dpo, ranking, reward, rpo, sft
from flywright.train.passes import Passes
from flywright.train.reference import with_reference
from flywright.train.settings import LoraSettings, TrainSettings

SETTINGS = TrainSettings(
    learning_rate=1e-2,
    schedule="cosine",
    batch_size=6,
    batch_ramp=[(10, 4)],
    epochs=3,
    checkpoint_every_steps=3,
    micro_batch_tokens=60,
)


def samples() -> list[Sample]:
    generator = np.random.default_rng(0)
    ids = [generator.integers(0, 400, int(n)) for n in generator.integers(5, 30, 40)]
    return [Sample((i,), (np.ones(len(i), dtype=bool),)) for i in ids]


def trained(spec, folder: Path, kind: dict, at_step=lambda _step: None) -> Decoder:
    model = Decoder(spec, seed=0)
    settings = SETTINGS.model_copy(update=kind)
    hook = (lambda _step: True, lambda _model, step: at_step(step))
    fit(model, Shuffled(samples(), seed=1), sft(), settings, folder, hooks=[hook])
    return model


def killed(spec, folder: Path, kind: dict, step: int) -> None:
    """Run in a child that kills itself with SIGKILL after `step`."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # a forked child has no thread pool
        trained(spec, folder, kind, lambda s: s == step and os.kill(os.getpid(), signal.SIGKILL))
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
@pytest.mark.parametrize(
    "precision, optimizer", [("fp32", "adamw"), ("bf16", "adamw"), ("bf16", "muon")]
)
def test_killed_twice_and_resumed(tiny_spec, tmp_path, precision, optimizer):
    kind = {"precision": precision, "optimizer": optimizer}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = trained(tiny_spec, tmp_path / "whole", kind).state_dict()
        killed(tiny_spec, tmp_path / "cut", kind, step=5)
        killed(tiny_spec, tmp_path / "cut", kind, step=13)
        found = trained(tiny_spec, tmp_path / "cut", kind).state_dict()
    finally:
        torch.set_num_threads(threads)
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    whole, cut = (
        (tmp_path / n / "metrics.jsonl").read_text().splitlines() for n in ("whole", "cut")
    )
    assert len(whole) == len(cut)


def test_order_does_not_depend_on_where_it_resumes():
    loader = Shuffled(samples(), seed=3)
    at_once = loader.take(0, 100)
    pieces = [s for start in range(0, 100, 7) for s in loader.take(start, min(7, 100 - start))]
    assert all(a is b for a, b in zip(at_once, pieces, strict=True))
    first_epoch = [loader.index(n) for n in range(40)]
    assert sorted(first_epoch) == list(range(40))


def pairs() -> list[Sample]:
    generator = np.random.default_rng(2)
    found = []
    for _ in range(30):
        prompt = generator.integers(0, 400, 6)
        answers = [generator.integers(0, 400, int(n)) for n in generator.integers(3, 12, 2)]
        documents = tuple(np.concatenate([prompt, answer]) for answer in answers)
        labels = {"rewards": generator.normal(size=2).astype(np.float32)}
        found.append(Sample(documents, tuple(np.arange(len(d)) >= 6 for d in documents), labels, 6))
    return found


def rated() -> list[Sample]:
    label = np.array([1, 2, np.nan, 3, 0], dtype=np.float32)
    return [Sample(s.documents, s.masks, {"attributes": label}) for s in samples()]


OBJECTIVES = {
    "sft": (sft(), samples),
    "adapters": (sft(), samples),  # with recomputed layers, and a validation whose best wins
    "reward": (reward(), rated),
    "ranking": (ranking(), pairs),
    "dpo": (dpo(0.1, 0.01), pairs),
    "rpo": (rpo(0.1, 1.0, 0.01), pairs),
}


def whole_training(spec, folder: Path, name: str, pause: float) -> None:
    """An objective's training from its folder to its weights, as a process of its own does it."""
    objective, made = OBJECTIVES[name]
    decoder = Decoder(spec, seed=0)
    is_reward = name in ("reward", "ranking")
    model = RewardModel.from_decoder(decoder, seed=0) if is_reward else decoder
    data = made()
    if name in ("dpo", "rpo"):
        data = with_reference(Passes([decoder], 200), data, folder / "reference.npy")
    changes = {"precision": "fp32", "checkpoint_every_steps": 2, "batch_ramp": [], "epochs": 2}
    validation = []
    if name == "adapters":
        changes |= {"lora": LoraSettings(rank=2), "recompute": True, "precision": "bf16"}
        lora.put_on(model, changes["lora"], seed=1)
        validation = data[:5]
    settings = SETTINGS.model_copy(update=changes)
    hook = (lambda _step: True, lambda _model, _step: time.sleep(pause))
    loader = Shuffled(data, seed=1)
    fit(model, loader, objective, settings, folder, validation=validation, hooks=[hook])
    save_file(dict(model.state_dict()), folder / "weights.safetensors")


def in_a_child(
    spec, folder: Path, name: str, alive_seconds: float | None, after_a_state: bool = False
) -> bool:
    """Run it; killed with SIGKILL after so long, or so long after the first state stands there.

    True if it came to its end.
    """
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        try:
            whole_training(spec, folder, name, 0.0 if alive_seconds is None else 0.01)
        finally:
            os._exit(0 if (folder / "weights.safetensors").exists() else 1)
    if alive_seconds is not None:
        deadline = time.monotonic() + (30 if after_a_state else 0)  # however slow the machine is
        while time.monotonic() < deadline and not any((folder / "state").glob("step-*")):
            time.sleep(0.002)
        time.sleep(alive_seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return not os.WIFSIGNALED(status)


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_killed_at_random_moments(tiny_spec, tmp_path, name):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    assert in_a_child(tiny_spec, whole, name, None)
    left = 0
    for number, moment in enumerate(np.random.default_rng(len(name)).uniform(0.02, 0.25, 20)):
        late = number % 2 == 1
        if left == 3 or in_a_child(tiny_spec, cut, name, moment / 4 if late else moment, late):
            break
        left += any((cut / "state").glob("step-*"))
    assert left, "no kill left a state to go on from"
    assert in_a_child(tiny_spec, cut, name, None)
    expected, found = (load_file(folder / "weights.safetensors") for folder in (whole, cut))
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    lines = [len((folder / "metrics.jsonl").read_text().splitlines()) for folder in (whole, cut)]
    assert lines[0] == lines[1]
