"""What hurt users of other trainers, each as a test that it cannot happen here; threads are named.

The laws (tests/laws) hold more of the same; a test here is the thread's own situation.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from flywright.data.batch import Sample, collate
from flywright.data.examples import comparison_examples, dialogue_examples
from flywright.data.loader import Shuffled
from flywright.errors import GuardError, UserError
from flywright.model import Decoder, RewardModel, load, save
from flywright.recipe.training import open_tokenizer
from flywright.records import Comparison, Conversation, Dialogue, Lineage
from flywright.tokenizer import chat
from flywright.train import guards
from flywright.train.alarms import STEPS, Watch
from flywright.train.loop import fit
from flywright.train.objectives import Objective, dpo, sft
from flywright.train.objectives.base import trained_logprobs
from flywright.train.passes import Passes
from flywright.train.reference import pair_reference, with_reference
from flywright.train.settings import TrainSettings

LINEAGE = Lineage(source="test")
SETTINGS = TrainSettings(
    learning_rate=1e-2, batch_size=4, epochs=2, precision="fp32", warmup_steps=0
)  # fmt: skip
PACKAGE = Path(__file__).parents[2] / "src" / "flywright"


def dialogue(*said: str) -> Dialogue:
    return Dialogue(id="d", conversation=Conversation.of(*said), lineage=LINEAGE)


def comparison(asked: str, chosen: str, rejected: str) -> Comparison:
    conversation = Conversation.of(asked)
    return Comparison(
        id=asked, conversation=conversation, chosen=chosen, rejected=rejected, lineage=LINEAGE
    )


def pairs(tokenizer, count: int = 8) -> list[Sample]:
    made = [comparison(f"Sort {n} words", f"apple pear {n}", "pear") for n in range(count)]
    return comparison_examples(made, tokenizer, 100, needs_rewards=False).samples


def documents(count: int = 8) -> list[Sample]:
    generator = np.random.default_rng(0)
    ids = [generator.integers(0, 400, int(n)) for n in generator.integers(5, 30, count)]
    return [Sample((i,), (np.arange(len(i)) % 3 > 0,)) for i in ids]


def test_pain_01_a_wrong_mask_is_seen_and_an_empty_one_refused(tokenizer):
    """trl 4879, 4147; Megatron-Bridge 3927; marin 7237."""
    examples = dialogue_examples([dialogue("Sort", "apple", "And?", "pear")], tokenizer, 100)
    (sample,) = examples.samples
    trained = sample.documents[0][sample.masks[0]].tolist()
    assert tokenizer.decode(trained) == "apple\npear\n"
    assert trained.count(chat.end_ids(tokenizer)[0]) == 2
    empty = replace(examples, samples=[replace(sample, masks=(np.zeros_like(sample.masks[0]),))])
    with pytest.raises(GuardError, match="empty mask"):
        guards.refuse_empty(empty, "sft")


def test_pain_02_the_end_of_turn_is_trained(tokenizer):
    """trl 1623, 2059; verl 3562, 5362: endless generation."""
    samples = dialogue_examples([dialogue("Sort", "apple")], tokenizer, 100).samples
    ends = chat.end_ids(tokenizer)
    assert samples[0].documents[0][-1] == ends[0] and samples[0].masks[0][-1]
    without = [replace(s, masks=(s.masks[0] & (s.documents[0] != ends[0]),)) for s in samples]
    with pytest.raises(GuardError, match="never trained"):
        guards.refuse_untrained_end(without, tokenizer, "sft")


def test_pain_03_a_packed_neighbour_is_never_seen(tiny_spec):
    """trl 805, 1230, 3067; axolotl 3796; LLaMA-Factory 2289, 8919."""
    model, (first, second, *_) = Decoder(tiny_spec, seed=0), documents()
    other = replace(first, documents=((first.documents[0] + 7) % 400,))
    own = int(second.masks[0][1:].sum())
    found = [trained_logprobs(model, collate([s, second]))[-own:] for s in (first, other)]
    assert torch.equal(*found)


def test_pain_04_accumulation_does_not_change_the_update(tiny_spec, tmp_path):
    """trl 2175, 2604; transformers 35438; verl 3994: means of means over uneven micro-batches."""
    weights = []
    for most in (30, 10_000):
        model = Decoder(tiny_spec, seed=0)
        settings = SETTINGS.model_copy(update={"micro_batch_tokens": most, "batch_size": 8})
        fit(model, Shuffled(documents(), 0), sft(), settings, tmp_path / str(most))
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)


def test_pain_05_policy_and_reference_are_one_at_step_0(tokenizer, tiny_spec, tmp_path):
    """NeMo-Aligner 227, 228."""
    model = Decoder(tiny_spec, seed=0)
    data = with_reference(Passes([model], 200), pairs(tokenizer), tmp_path / "reference.npy")
    fitted = fit(model, Shuffled(data, 0), dpo(0.1, 0.0), SETTINGS, tmp_path)
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert abs(first["loss"] - np.log(2)) < 1e-6 and abs(first["margin"]) < 1e-5
    assert fitted.last["loss"] < np.log(2)


def test_pain_06_over_length_pairs_are_in_no_figure(tokenizer, tiny_spec):
    """NeMo-RL 180: masked pairs gave 0.693 and half an accuracy."""
    made = [comparison("Sort", "apple", "pear"), comparison("Sort", "apple " * 80, "pear")]
    examples = comparison_examples(made, tokenizer, 60, needs_rewards=False)
    assert (len(examples.samples), examples.over_length) == (1, 1)
    batch = collate([replace(s, labels={"reference": np.zeros(2, np.float32)})
                     for s in examples.samples])  # fmt: skip
    assert dpo(0.1, 0.0).count(batch) == 1
    with pytest.raises(GuardError, match="over-length"):
        guards.refuse_over_length(examples, 0.1, "dpo")


def test_pain_07_there_is_one_place_where_log_probabilities_are_made():
    """trl 7063; Liger-Kernel 1082: two copies of the loss drifted apart."""
    makers = r"log_softmax|cross_entropy|logsumexp|logaddexp"
    rooms = [PACKAGE / "train", PACKAGE / "data", PACKAGE / "model"]
    found = {
        path.name
        for room in rooms
        for path in room.rglob("*.py")
        if re.search(makers, path.read_text())
    }
    assert found == {"logprobs.py"}


def test_pain_08_a_reward_head_is_never_lost(tiny_spec, tmp_path):
    """trl 578, 937; LLaMA-Factory 430, 4379; ms-swift 6099; OpenRLHF 209."""
    model = RewardModel.from_decoder(Decoder(tiny_spec, seed=0), seed=1)
    ids = torch.arange(9)[None]
    save(model, tmp_path)
    torch.testing.assert_close(load(tmp_path)(ids), model(ids), rtol=1e-6, atol=1e-6)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    save_file({name: t for name, t in tensors.items() if "score" not in name}, path)
    with pytest.raises(UserError, match="score"):
        load(tmp_path)


def test_pain_09_no_bos_and_no_second_one(tokenizer):
    """OpenRLHF 393, 1069; open-r1 462; trl 1114."""
    rendered = chat.render(tokenizer, Conversation.of("Sort", "apple"))
    begins = rendered.ids[:1]
    assert tokenizer.bos_id not in rendered.ids
    pair = comparison_examples([comparison("Sort", "a", "b")], tokenizer, 99, False).samples[0]
    assert all(document[0] == begins[0] for document in pair.documents)
    assert all((document == begins[0]).sum() == 1 for document in pair.documents)


@pytest.mark.parametrize("answer", ["apple", " apple", "\napple", "<extra_id_1>", "", "é", "\n\n"])
def test_pain_10_prompt_and_answer_never_merge(tokenizer, answer):
    """trl 1679, 2054; torchtitan 4504."""
    prompt = chat.prompt_ids(tokenizer, Conversation.of("Sort"))
    made = comparison_examples([comparison("Sort", answer, "pear")], tokenizer, 99, False)
    document = made.samples[0].documents[0]
    assert document[: len(prompt)].tolist() == prompt and made.samples[0].shared == len(prompt)


def test_pain_11_nothing_is_cut(tokenizer):
    """trl 3382, 6548: truncation left pairs without an answer."""
    talks = [dialogue("Sort " * n, "apple") for n in (1, 5, 80)]
    examples = dialogue_examples(talks, tokenizer, 60)
    assert examples.over_length == 1
    for talk, sample in zip(talks, examples.samples, strict=False):
        whole = chat.render(tokenizer, talk.conversation)
        assert sample.documents[0].tolist() == list(whole.ids)


def test_pain_12_another_chat_format_is_refused(tokenizer, tiny_spec, tmp_path):
    """LLaMA-Factory 2509, 3563, 8720; vllm 5298."""
    save(Decoder(tiny_spec, seed=0), tmp_path, [3])
    tokenizer.save(tmp_path)
    open_tokenizer(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(path.read_text().replace(chat.CHAT_HASH, "0" * len(chat.CHAT_HASH)))
    with pytest.raises(GuardError, match="chat format"):
        open_tokenizer(tmp_path)


def test_pain_13_the_same_seed_gives_the_same_bits(tiny_spec, tmp_path):
    """ms-swift 2811."""
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        model = Decoder(tiny_spec, seed=0)
        fit(model, Shuffled(documents(), seed), sft(), SETTINGS, tmp_path / name)
        found.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


class Largest(TorchDispatchMode):
    """Notes the most elements that any tensor had."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(one, torch.Tensor):
                self.elements = max(self.elements, one.numel())
        return out


def test_pain_14_no_tensor_of_all_logits_in_dpo(tiny_spec):
    """trl 1667, 2452, 3168; LLaMA-Factory 10720; ms-swift 6966: out of memory on the logits."""
    spec = tiny_spec.model_copy(update={"vocab_size": 100_000})
    generator = np.random.default_rng(0)
    made = []
    for _ in range(40):
        ids = tuple(generator.integers(0, 100_000, 60) for _ in range(2))
        made.append(Sample(ids, (np.arange(60) > 3,) * 2, {"reference": np.zeros(2, np.float32)}))
    batch, model, objective = collate(made), Decoder(spec, seed=0), dpo(0.1, 0.1)
    with Largest() as seen:
        objective.loss(objective.outputs(model, batch), batch)[0].backward()
    weights = spec.vocab_size * spec.hidden_size
    assert seen.elements <= max(weights, 5_000_000) < batch.trained_tokens * spec.vocab_size / 20


def test_pain_15_pairs_are_packed_and_their_prompt_stands_once(tokenizer):
    """trl 2422, 2469, 7014; NeMo-RL 719; torchtune 2177; Liger-Kernel 476."""
    made = pairs(tokenizer)
    batch = collate(made)
    prompts = sum(sample.shared for sample in made)
    answers = sum(int(mask.sum()) for sample in made for mask in sample.masks)
    assert batch.ids_N.numel() == prompts + answers


def test_pain_16_the_reference_survives_any_order(tokenizer, tiny_spec, tmp_path, monkeypatch):
    """trl 6291, 7083; open-instruct 1144, 1182: values of other rows after a reshuffle."""
    model, made, cache = Decoder(tiny_spec, seed=0), pairs(tokenizer), tmp_path / "reference.npy"
    with_reference(Passes([model], 200), made[:5], cache)
    asked: list[int] = []

    def counted(passes, samples, *rest):
        asked.append(len(samples))
        return pair_reference(passes, samples, *rest)

    monkeypatch.setattr("flywright.train.reference.pair_reference", counted)
    again = with_reference(Passes([model], 200), made[::-1], cache)
    assert asked == [4, 3]  # four are checked, the three new ones computed
    expected = pair_reference(Passes([model], 200), made[::-1])
    found = np.stack([sample.labels["reference"] for sample in again])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    cache.write_bytes(cache.read_bytes()[:50])
    with pytest.raises(GuardError, match="remove it"):
        with_reference(Passes([model], 200), made, cache)


def test_pain_19_a_resumed_run_trains_on_the_rest_of_the_epoch(tiny_spec, tmp_path):
    """verl 7401; prime-rl 745; open-instruct 1823; LLaMA-Factory 512."""
    made = documents(20)
    marks = {id(sample): n for n, sample in enumerate(made)}

    class Told(Shuffled):
        def take(self, start: int, count: int) -> list[Sample]:
            found = super().take(start, count)
            seen.append((start, [marks[id(sample)] for sample in found]))
            return found

    def stop(_model, step: int) -> None:
        raise KeyboardInterrupt

    seen: list[tuple[int, list[int]]] = []
    settings = SETTINGS.model_copy(update={"checkpoint_every_steps": 2})
    with pytest.raises(KeyboardInterrupt):
        fit(Decoder(tiny_spec, seed=0), Told(made, 1), sft(), settings, tmp_path,
            hooks=[(lambda step: step == 3, stop)])  # fmt: skip
    fit(Decoder(tiny_spec, seed=0), Told(made, 1), sft(), settings, tmp_path)
    at = dict(seen)  # what was taken again after the stop is the same
    assert [start for start, _ in seen] == [0, 4, 8, *range(8, 40, 4)]
    assert sorted(n for start in range(0, 20, 4) for n in at[start]) == list(range(20))


def test_pain_20_a_folder_with_a_tensor_too_few_or_misshapen_is_refused(tiny_spec, tmp_path):
    """Megatron-Bridge 281; NeMo 11360; LLaMA-Factory 3894: empty tensors after a conversion."""
    save(Decoder(tiny_spec, seed=0), tmp_path, [3])
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    for harmed in (
        {key: value for key, value in tensors.items() if key != name},
        tensors | {name: torch.empty(0)},
    ):
        save_file(harmed, path)
        with pytest.raises(UserError, match="up_proj"):
            load(tmp_path)


def test_pain_23_a_margin_that_follows_length_rings():
    """direct-preference-optimization 35; trl 2003; SimPO 20."""
    watch, rung = Watch(), []
    for step in range(2 * STEPS):
        rung += watch.alarms(step, {"margin_length_correlation": 0.8})
    assert len(rung) == 1 and "length" in rung[0]


def test_pain_24_the_sft_term_holds_the_chosen_answers_up(tokenizer, tiny_spec, tmp_path):
    """trl 800; direct-preference-optimization 32, 36; LLaMA-Factory 6153."""
    settings = SETTINGS.model_copy(update={"epochs": 12, "learning_rate": 3e-3})

    def chosen(objective: Objective, name: str) -> float:
        model = Decoder(tiny_spec, seed=0)
        data = with_reference(Passes([model], 200), pairs(tokenizer), tmp_path / f"{name}.npy")
        return fit(model, Shuffled(data, 0), objective, settings, tmp_path / name).last[
            "chosen_gain_per_token"
        ]

    assert chosen(dpo(0.3, 0.5), "with") > chosen(dpo(0.3, 0.0), "without") + 0.1
