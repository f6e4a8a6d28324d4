"""Law 4: a run that is killed with SIGKILL and resumed ends with the same bits."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from flywright.data.batch import Sample
from flywright.data.loader import Shuffled
from flywright.model import Decoder
from flywright.train.loop import fit
from flywright.train.objectives import sft
from flywright.train.settings import TrainSettings

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
