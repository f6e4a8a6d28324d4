"""Guards refuse, schedules follow consumed samples, the reference cache is rechecked."""

import numpy as np
import pytest

from flywright.data.batch import Sample
from flywright.data.examples import Examples, comparison_examples, dialogue_examples
from flywright.data.loader import Shuffled
from flywright.errors import GuardError, UserError
from flywright.model import Decoder
from flywright.records import Comparison, Conversation, Dialogue, Lineage
from flywright.train import guards
from flywright.train.loop import fit
from flywright.train.objectives import sft
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
    first = with_reference(model, samples, tmp_path / "reference.npy", 100)
    again = with_reference(model, samples, tmp_path / "reference.npy", 100)
    np.testing.assert_array_equal(first[0].labels["reference"], again[0].labels["reference"])
    with pytest.raises(GuardError, match="step 0"):
        with_reference(Decoder(tiny_spec, seed=1), samples, tmp_path / "reference.npy", 100)


def test_ramp_and_schedules():
    settings = TrainSettings(
        learning_rate=1.0, batch_size=8, batch_ramp=[(8, 2), (16, 4)], schedule="linear",
        warmup_steps=0, min_learning_rate=0.0,
    )  # fmt: skip
    assert steps_of(settings, 30) == [2, 2, 2, 2, 4, 4, 8, 6]
    assert learning_rate(settings, 5, 15, 30) == pytest.approx(0.5)
    warm = settings.model_copy(update={"warmup_steps": 3, "schedule": "constant"})
    assert [learning_rate(warm, s, 0, 30) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_training_learns(tokenizer, tiny_spec, tmp_path):
    samples = dialogue_examples([dialogue()], tokenizer, 100).samples
    settings = TrainSettings(learning_rate=1e-2, batch_size=1, samples=60, precision="fp32")
    fitted = fit(Decoder(tiny_spec, seed=0), Shuffled(samples, 0), sft(), settings, tmp_path)
    assert fitted.last["loss"] < 0.1
