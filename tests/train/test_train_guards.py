"""Guards refuse, schedules follow consumed samples, the reference cache is rechecked."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flywright.data.batch import Sample
from flywright.data.examples import Examples, comparison_examples, dialogue_examples
from flywright.data.loader import Shuffled
from flywright.errors import GuardError, UserError
from flywright.model import Decoder, RewardModel
from flywright.records import Comparison, Conversation, Dialogue, Lineage
from flywright.settings import parse_settings
from flywright.spec import MeshSpec
from flywright.train import guards
from flywright.train.loop import fit
from flywright.train.objectives import reward, sft
from flywright.train.objectives.reward import predicted_attributes
from flywright.train.passes import Passes
from flywright.train.reference import with_reference
from flywright.train.schedule import learning_rate, steps_of
from flywright.train.settings import TrainSettings

LINEAGE = Lineage(source="test")


def dialogue(answer: str = "apple pear") -> Dialogue:
    return Dialogue(id="d", conversation=Conversation.of("Sort", answer), lineage=LINEAGE)


def pair() -> Comparison:
    return Comparison(
        id="c",
        conversation=Conversation.of("Sort"),
        chosen="apple",
        rejected="pear",
        lineage=LINEAGE,
    )


def test_empty_mask_is_refused():
    sample = Sample((np.arange(4),), (np.zeros(4, dtype=bool),))
    with pytest.raises(GuardError, match="empty mask"):
        guards.refuse_empty(Examples([sample], 0), "sft")
    with pytest.raises(GuardError, match="no sample fits"):
        guards.refuse_empty(Examples([], 3), "sft")


def test_untrained_end_of_turn_is_refused(tokenizer):
    samples = dialogue_examples([dialogue()], tokenizer, 100).samples
    guards.refuse_untrained_end(samples, tokenizer, "sft")
    cut = [Sample((s.documents[0],), (s.masks[0] & (s.documents[0] != 5),)) for s in samples]
    with pytest.raises(GuardError, match="never trained"):
        guards.refuse_untrained_end(cut, tokenizer, "sft")


def test_over_length_records_are_counted_and_too_many_refused(tokenizer):
    examples = dialogue_examples([dialogue(), dialogue("pear " * 99)], tokenizer, 60)
    assert (len(examples.samples), examples.over_length) == (1, 1)
    with pytest.raises(GuardError, match=r"50\.0%"):
        guards.refuse_over_length(examples, 0.1, "sft")


def test_other_chat_format_is_refused():
    with pytest.raises(GuardError, match="chat format"):
        guards.refuse_other_format("abc", "def", "policy")


def test_nan_stops_training_with_the_step(tiny_spec, tmp_path):
    model = Decoder(tiny_spec, seed=0)
    model.lm_head.weight.data[0, 0] = float("nan")
    sample = Sample((np.arange(9),), (np.ones(9, dtype=bool),))
    settings = TrainSettings(learning_rate=1e-3, batch_size=1)
    with pytest.raises(GuardError, match="step 0: loss is nan"):
        fit(model, Shuffled([sample], 0), sft(), settings, tmp_path)


def test_rpo_refuses_a_missing_reward(tokenizer):
    with pytest.raises(UserError, match="record c: RPO needs"):
        comparison_examples([pair()], tokenizer, 100, needs_rewards=True)


def test_cached_reference_of_another_model_is_refused(tokenizer, tiny_spec, tmp_path):
    samples = comparison_examples([pair()] * 3, tokenizer, 100, needs_rewards=False).samples
    model = Decoder(tiny_spec, seed=0)
    first = with_reference(Passes([model], 100), samples, tmp_path / "reference.npy")
    again = with_reference(Passes([model], 100), samples, tmp_path / "reference.npy")
    np.testing.assert_array_equal(first[0].labels["reference"], again[0].labels["reference"])
    with pytest.raises(GuardError, match="step 0"):
        with_reference(
            Passes([Decoder(tiny_spec, seed=1)], 100), samples, tmp_path / "reference.npy"
        )


def test_ramp_and_schedules():
    settings = TrainSettings(
        learning_rate=1.0, batch_size=8, batch_ramp=[(8, 2), (16, 4)], schedule="linear",
        warmup_steps=0, min_learning_rate=0.0,
    )  # fmt: skip
    assert steps_of(settings, 30) == [2, 2, 2, 2, 4, 4, 8, 6]
    assert learning_rate(settings, 5, 15, 30) == pytest.approx(0.5)
    warm = settings.model_copy(update={"warmup_steps": 3, "schedule": "constant"})
    assert [learning_rate(warm, s, 0, 30) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_the_papers_ramp():
    """768, 1536, 2304 sequences of 4096 tokens, from 200 and 400 billion on, of 8 T (SPEC 3.3)."""
    sequences = lambda billions: round(billions * 1e9 / 4096)  # noqa: E731
    settings = TrainSettings(
        learning_rate=1e-4, schedule="cosine", min_learning_rate=1e-5, batch_size=2304,
        batch_ramp=[(sequences(200), 768), (sequences(400), 1536)],
    )  # fmt: skip
    sizes = steps_of(settings, sequences(8000))
    assert [sizes.count(size) for size in (768, 1536)] == [63_579, 31_789]  # one crosses its end
    assert sum(sizes) == sequences(8000) and sizes == sorted(sizes[:-1]) + sizes[-1:]
    half = learning_rate(settings, 400_000, sequences(4000), sequences(8000))
    assert half == pytest.approx((1e-4 + 1e-5) / 2, rel=1e-4)


def test_schedules_of_continued_training():
    wsd = TrainSettings(
        learning_rate=1.0, batch_size=1, schedule="wsd", decay_share=0.2, warmup_steps=0
    )
    rates = [learning_rate(wsd, 9, consumed, 100) for consumed in (0, 50, 80, 90, 100)]
    assert rates == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.0])
    steep = wsd.model_copy(update={"schedule": "steep", "min_learning_rate": 0.2})
    rates = [learning_rate(steep, 9, consumed, 100) for consumed in (0, 4, 25, 100)]
    assert rates == pytest.approx([1.0, 0.84, 0.6, 0.2])


def test_training_learns(tokenizer, tiny_spec, tmp_path):
    samples = dialogue_examples([dialogue()], tokenizer, 100).samples
    settings = TrainSettings(learning_rate=1e-2, batch_size=1, samples=60, precision="fp32")
    fitted = fit(Decoder(tiny_spec, seed=0), Shuffled(samples, 0), sft(), settings, tmp_path)
    assert fitted.last["loss"] < 0.1


def test_what_is_computed_in_bf16_is_not_rounded_when_it_is_kept(tiny_spec, tmp_path):
    """Stages of small rates follow each other: each must start from what the last one saved."""
    model = Decoder(tiny_spec, seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sample = Sample((np.arange(9),), (np.ones(9, dtype=bool),))
    settings = TrainSettings(learning_rate=1e-12, batch_size=1, samples=2, precision="bf16")
    fit(model, Shuffled([sample], 0), sft(), settings, tmp_path)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert (tensor - before[name]).abs().max() < 1e-9, name


def test_a_reward_head_is_not_rounded_even_in_the_first_step(tiny_spec, tmp_path):
    model = RewardModel.from_decoder(Decoder(tiny_spec, seed=0), seed=0)
    exact, seen = model.score.weight.detach().clone(), []

    def outputs(model, batch, hidden):
        seen.append(model.score.weight.detach().clone())
        return predicted_attributes(model, batch, hidden)

    sample = Sample((np.arange(9),), (np.zeros(9, bool),), {"attributes": np.ones(5, np.float32)})
    settings = TrainSettings(learning_rate=1e-3, batch_size=1, samples=1, precision="bf16")
    fit(model, Shuffled([sample], 0), replace(reward(), outputs=outputs), settings, tmp_path)
    assert torch.equal(seen[0], exact) and not torch.equal(exact, exact.bfloat16().float())


@pytest.mark.parametrize("ramp", [[(16, 4), (8, 2)], [(8, 2), (8, 4)], [(0, 2)]])
def test_a_ramp_that_does_not_rise_is_refused(ramp):
    """A later entry that ends before an earlier one would never hold."""
    with pytest.raises(ValueError, match="must rise"):
        TrainSettings(learning_rate=1.0, batch_size=8, batch_ramp=ramp)
    with pytest.raises(UserError, match=r"^mesh\.toml: dp_ramp: \[.*must rise"):
        parse_settings(MeshSpec, {"dp": 8, "dp_ramp": ramp}, "mesh.toml")
