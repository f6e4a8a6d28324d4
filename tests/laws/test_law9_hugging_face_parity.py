"""Law 9: same logits and gradients as transformers, in both directions, reward head kept."""

import pytest
import torch

from flywright.model import Decoder, RewardModel, load, save
from flywright.spec import ModelSpec

transformers = pytest.importorskip("transformers")

SHAPES = {
    "gqa": {"hidden_size": 32, "heads": 4, "kv_heads": 2, "head_dim": 8},
    "wide heads": {"hidden_size": 24, "heads": 4, "kv_heads": 1, "head_dim": 12},
    "mha": {"hidden_size": 32, "heads": 4, "kv_heads": 4, "head_dim": 8},
}


def shaped(name: str) -> ModelSpec:
    shape = SHAPES[name]
    return ModelSpec(vocab_size=50, layers=3, ffn_size=40, context_length=64, init_std=0.2, **shape)


def with_random_norms(model):
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return model


@pytest.mark.parametrize("name", SHAPES)
def test_our_folder_in_transformers(name, tmp_path):
    ours = with_random_norms(Decoder(shaped(name), seed=0))
    save(ours, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.arange(40).reshape(2, 20)
    logits, expected = ours(ids), theirs(ids).logits
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    logits.square().mean().backward()
    expected.square().mean().backward()
    for key, parameter in theirs.named_parameters():
        torch.testing.assert_close(
            ours.get_parameter(key).grad, parameter.grad, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("name", SHAPES)
def test_their_folder_here(name, tmp_path):
    save(with_random_norms(Decoder(shaped(name), seed=0)), tmp_path / "first")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    theirs.save_pretrained(tmp_path / "second")
    ours = load(tmp_path / "second")
    assert ours.spec == shaped(name)
    ids = torch.arange(40).reshape(2, 20)
    torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-5, atol=1e-5)


def test_reward_head_is_kept(tmp_path):
    ours = RewardModel.from_decoder(with_random_norms(Decoder(shaped("gqa"), seed=0)), seed=3)
    save(ours, tmp_path)
    again = load(tmp_path)
    ids = torch.arange(40).reshape(2, 20)
    assert torch.equal(again(ids), ours(ids))
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(theirs(ids).logits, ours(ids), rtol=1e-5, atol=1e-5)
