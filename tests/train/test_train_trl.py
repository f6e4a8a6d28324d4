"""TRL as an independent reference: loss, rewards and gradients on the same weights and records.

The trainers are built by benchmarks/train_peer.py, so this also proves of each form of batch that
the benchmark times (padded, packed, padding-free) that it keeps documents apart.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl", reason="TRL is not installed: pip install -e '.[dev]'")

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import train_peer

from flywright.data.batch import collate
from flywright.data.examples import comparison_examples, dialogue_examples, ranking_examples
from flywright.model import Decoder, RewardModel, save
from flywright.model.decoder import InitialTensors
from flywright.records import Comparison, Conversation, Dialogue, Lineage
from flywright.tokenizer import chat
from flywright.train.objectives import dpo, ranking, sft
from flywright.train.passes import Passes
from flywright.train.reference import with_reference
from train import rows_of

LINEAGE = Lineage(source="test")
WORDS = ("apple", "pear", "plum", "fox", "dog", "lazy", "brown", "quick", "add", "return", "sort")
BETA, PAIRS = 0.3, 4
PADDED = {"rows": PAIRS, "weights": "fp32"}


def words(count: int, start: int) -> str:
    return " ".join(WORDS[(start + 5 * place) % len(WORDS)] for place in range(count))


def comparisons() -> list[Comparison]:
    return [
        Comparison(
            id=str(n), conversation=Conversation.of(words(2 + n, n)), chosen=words(5 - n, n + 1),
            rejected=words(1 + 2 * n, n + 3), lineage=LINEAGE,
        )
        for n in range(PAIRS)
    ]  # fmt: skip


def dialogues() -> list[Dialogue]:
    said = [(words(3, n), words(4 + n, n + 1), words(2, n), words(1 + n, n)) for n in range(PAIRS)]
    return [
        Dialogue(id=str(n), conversation=Conversation.of(*turns), lineage=LINEAGE)
        for n, turns in enumerate(said)
    ]


def moved(model):
    """The model after what a few steps of training may do to it."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def peer_of(what, model, samples, tokenizer, folder, setting):
    """TRL's trainer on the samples, its model at `model`'s weights; and its one batch."""
    weights = folder / "weights"
    weights.mkdir()
    save(model, weights, chat.end_ids(tokenizer), pad_id=tokenizer.pad_id)
    tokenizer.save(weights)
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows_of(what, samples)))
    job = {
        "what": what, "setting": setting, "data": str(data), "work": str(folder / "work"),
        "model": str(weights), "context": 128, "records_per_step": PAIRS, "learning_rate": 1e-3,
        "weight_decay": 0.0, "beta": BETA,
    }  # fmt: skip
    trainer = train_peer.trainer_of(job)
    trainer.model.train()
    return trainer, list(trainer.get_train_dataloader())


def gradients(model) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def assert_alike(ours, theirs) -> None:
    ours, theirs = gradients(ours), gradients(theirs)
    ours.pop("score.bias", None)  # transformers' head has none, and here it cancels
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    "setting",
    [
        PADDED,
        {"rows": 1, "weights": "fp32", "packing": True},
        {"rows": PAIRS, "weights": "fp32", "padding_free": True},
    ],
    ids=["padded", "packed", "padding-free"],
)
def test_sft_loss_and_gradients(tokenizer, tiny_spec, tmp_path, setting):
    samples = dialogue_examples(dialogues(), tokenizer, 128).samples
    model, batch = moved(Decoder(tiny_spec, seed=0)), collate(samples)
    trainer, inputs = peer_of("sft", model, samples, tokenizer, tmp_path, setting)
    loss = sft().loss(sft().outputs(model, batch), batch)[0] / batch.trained_tokens
    loss.backward()
    theirs = 0.0
    for one in inputs:
        part = trainer.compute_loss(trainer.model, one, num_items_in_batch=batch.trained_tokens)
        part.backward()
        theirs += part.item()
    assert theirs == pytest.approx(loss.item(), abs=1e-5)
    assert_alike(model, trainer.model)


def test_dpo_loss_rewards_and_gradients(tokenizer, tiny_spec, tmp_path):
    reference = Decoder(tiny_spec, seed=0)
    samples = comparison_examples(comparisons(), tokenizer, 128, needs_rewards=False).samples
    trainer, (inputs,) = peer_of("dpo", reference, samples, tokenizer, tmp_path, PADDED)
    samples = with_reference(Passes([reference], 1000), samples, tmp_path / "reference.npy")
    model, batch = moved(reference), collate(samples)
    trainer.model.load_state_dict(model.state_dict())
    objective = dpo(BETA, 0.0)
    loss, metrics = objective.loss(objective.outputs(model, batch), batch)
    (loss / PAIRS).backward()
    theirs = trainer.compute_loss(trainer.model, inputs)
    theirs.backward()
    assert theirs.item() == pytest.approx(loss.item() / PAIRS, abs=1e-5)
    said = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    gain, margin = (BETA * metrics[name].item() / PAIRS for name in ("chosen_gain", "margin"))
    assert said["rewards/chosen"] == pytest.approx(gain, abs=1e-5) != 0
    assert said["rewards/rejected"] == pytest.approx(gain - margin, abs=1e-5)
    assert said["rewards/accuracies"] == metrics["accuracy"].item() / PAIRS
    assert_alike(model, trainer.model)


def test_bradley_terry_loss_and_gradients(tokenizer, tiny_spec, tmp_path):
    samples = ranking_examples(comparisons(), tokenizer, 128).samples
    model = RewardModel(tiny_spec, ("helpfulness",), (1.0,))
    model.load_state_dict(InitialTensors(model, tiny_spec, seed=0))
    moved(model).score.bias.data.zero_()
    batch, objective = collate(samples), ranking()
    trainer, (inputs,) = peer_of("reward", model, samples, tokenizer, tmp_path, PADDED)
    loss, metrics = objective.loss(objective.outputs(model, batch), batch)
    (loss / PAIRS).backward()
    theirs = trainer.compute_loss(trainer.model, inputs)
    theirs.backward()
    assert theirs.item() == pytest.approx(loss.item() / PAIRS, abs=1e-5)
    gap = metrics["reward_gap"].item() / PAIRS
    assert trainer._metrics["train"]["margin"][-1] == pytest.approx(gap, abs=1e-5)
    assert_alike(model, trainer.model)
