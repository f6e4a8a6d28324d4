"""What a step tells: times that add up, MFU from counted FLOPs, alarms that ring once."""

import json
from dataclasses import replace

import numpy as np
import pytest

from flywright.data.batch import Sample, collate
from flywright.data.loader import Shuffled
from flywright.errors import GuardError, UserError
from flywright.model import Decoder
from flywright.train import meter
from flywright.train.alarms import STEPS, Watch
from flywright.train.loop import fit
from flywright.train.meter import seconds_at_peak
from flywright.train.objectives import dpo, sft
from flywright.train.objectives.pairs import health
from flywright.train.passes import Passes
from flywright.train.reference import with_reference
from flywright.train.settings import TrainSettings

SETTINGS = TrainSettings(learning_rate=1e-2, batch_size=4, epochs=4, precision="fp32")


def sample(length: int, trained: int) -> Sample:
    return Sample((np.arange(length),), (np.arange(length) >= length - trained,))


def pairs(longer_chosen: int = 4) -> list[Sample]:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(8):
        prompt = generator.integers(0, 400, 5)
        lengths = (4 + longer_chosen, 4)
        documents = tuple(np.concatenate([prompt, generator.integers(0, 400, n)]) for n in lengths)
        found.append(Sample(documents, tuple(np.arange(len(d)) >= 5 for d in documents), {}, 5))
    return found


def test_every_line_says_where_the_time_went(tiny_spec, tmp_path):
    documents = [sample(20, 8) for _ in range(8)]
    fit(Decoder(tiny_spec, seed=0), Shuffled(documents, 0), sft(), SETTINGS, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 8
    for line in lines:
        parts = [line[f"{part}_seconds"] for part in ("data", "forward", "backward", "step")]
        assert all(part >= 0 for part in parts) and sum(parts) <= line["seconds"] + 1e-3
        assert 0 < line["mfu_causal"] <= line["mfu"] < 1.5
        assert line["memory_bytes"] > 1e7 and line["tokens_per_second"] > 0
        assert line["grad_norm"] > 0


def test_flops_are_those_of_the_spec(tiny_spec):
    """A window that is trained whole: the planner's count, but for its unpredicted last token."""
    batch = collate([sample(100, 99)])
    found = seconds_at_peak(tiny_spec, [batch], 1.0, lora=False)
    head = 6 * tiny_spec.hidden_size * tiny_spec.vocab_size
    assert found["mfu"] == pytest.approx(100 * tiny_spec.flops_per_token(100) - head)
    causal = 100 * tiny_spec.flops_per_token(100, causal=True) - head
    assert found["mfu_causal"] == pytest.approx(causal, rel=0.01)
    assert seconds_at_peak(tiny_spec, [batch], 0.0, lora=False) == {}


def test_a_shared_prompt_counts_once(tiny_spec):
    shared = collate(pairs())
    apart = collate([replace(pair, shared=0) for pair in pairs()])
    ours, twin = (seconds_at_peak(tiny_spec, [b], 1.0, lora=False)["mfu"] for b in (shared, apart))
    assert ours < twin


def test_health_of_a_batch():
    margin, longer = np.array([1.0, 2.0, 4.0]), np.array([2.0, 3.0, 7.0])
    means = {
        "margin": margin.mean(), "chosen_gain": -3.0, "_gain": -10.0, "_tokens": 20.0,
        "_chosen_tokens": 12.0, "_margin_squared": (margin**2).mean(), "_longer": longer.mean(),
        "_longer_squared": (longer**2).mean(), "_margin_longer": (margin * longer).mean(),
    }  # fmt: skip
    found = health(means)
    expected = np.corrcoef(margin, longer)[0, 1]
    assert found["margin_length_correlation"] == pytest.approx(expected)
    assert found["kl_per_token"] == 0.5 and found["chosen_gain_per_token"] == -0.25


@pytest.mark.parametrize(
    "figure, bad", [("chosen_gain_per_token", -1.0), ("margin_length_correlation", 0.9),
                    ("kl_per_token", 2.0)],
)  # fmt: skip
def test_an_alarm_rings_once_and_again_after_it_was_well(figure, bad):
    watch, rung = Watch(), []
    for step in range(8 * STEPS):
        value = bad if step < 2 * STEPS or step >= 6 * STEPS else 0.0
        rung += [(step, line) for line in watch.alarms(step, {figure: value})]
    assert len(rung) == 2 and rung[0][0] == STEPS - 1 and figure in rung[0][1]


def test_training_that_drives_the_chosen_answers_away_rings(tiny_spec, tmp_path):
    """Rejected answers that are the chosen ones' beginning: both fall, and nothing holds them."""
    model, made = Decoder(tiny_spec, seed=0), []
    for pair in pairs(0):
        chosen = pair.documents[0]
        rejected = np.concatenate([chosen[:-1], (chosen[-1:] + 1) % 400])
        made.append(replace(pair, documents=(chosen, rejected)))
    data = with_reference(Passes([model], 200), made, tmp_path / "reference.npy")
    settings = SETTINGS.model_copy(
        update={"epochs": 30, "learning_rate": 3e-2, "warmup_steps": 0, "weight_decay": 0.0}
    )
    told: list[str] = []
    tick = lambda _done, _total, note: told.append(note)  # noqa: E731
    fitted = fit(model, Shuffled(data, 0), dpo(0.5, 0.0), settings, tmp_path, tick=tick)
    assert any("chosen_gain_per_token" in line for line in fitted.alarms), fitted.alarms
    assert [note for note in told if note.startswith("alarm: ")]


def test_a_policy_that_is_not_the_reference_never_takes_a_step(tiny_spec, tmp_path):
    """NeMo-Aligner 227: the reference was another model, and training went on."""
    data = with_reference(
        Passes([Decoder(tiny_spec, seed=1)], 200), pairs(), tmp_path / "reference.npy"
    )
    model = Decoder(tiny_spec, seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(GuardError, match="step 0"):
        fit(model, Shuffled(data, 0), dpo(0.1, 0.0), SETTINGS, tmp_path)
    assert all(before[name].equal(tensor) for name, tensor in model.state_dict().items())


def test_recomputed_layers_give_the_same_bits(tiny_spec, tmp_path):
    found = []
    for recompute in (False, True):
        model = Decoder(tiny_spec, seed=0)
        settings = SETTINGS.model_copy(update={"recompute": recompute})
        documents = [sample(20, 8) for _ in range(8)]
        fit(model, Shuffled(documents, 0), sft(), settings, tmp_path / str(recompute))
        found.append(model.state_dict())
    assert all(found[0][name].equal(tensor) for name, tensor in found[1].items())


def test_tensorboard_gets_every_figure(tiny_spec, tmp_path):
    pytest.importorskip("tensorboard")
    settings = SETTINGS.model_copy(update={"log_to": ["tensorboard"]})
    documents = [sample(20, 8) for _ in range(4)]
    fit(Decoder(tiny_spec, seed=0), Shuffled(documents, 0), sft(), settings, tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert len(events.Scalars("loss")) == 4 and "mfu" in events.Tags()["scalars"]


def test_a_missing_extra_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(UserError, match=r"no wandb: pip install 'flywright\[log\]"):
        meter.Meter(tmp_path, 0, ["wandb"])


def test_filling_up_is_not_work(tiny_spec):
    one = Sample((np.arange(8),), (np.arange(8) > 0,))
    plain, filled = (seconds_at_peak(tiny_spec, [collate([one], n)], 1.0, False) for n in (8, 512))
    assert filled == plain
