"""A tiny model and tokenizer for the tests of this room."""

import pytest
import torch

from flywright.generate import Engine
from flywright.model import Decoder, RewardModel
from flywright.spec import ModelSpec
from flywright.tokenizer import Tokenizer, train_tokenizer


def tiny_spec(vocab_size: int) -> ModelSpec:
    return ModelSpec(
        vocab_size=vocab_size,
        hidden_size=32,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=16,
        ffn_size=48,
        context_length=64,
        rotary_fraction=0.5,
        init_std=0.3,
    )


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    words = [f"{a}{b}" for a in "bcdfghklmnpr" for b in ("an", "el", "ob", "ut")]
    return train_tokenizer([" ".join(words[i:] + words[:i]) + ".\n" for i in range(40)], 320)


@pytest.fixture(scope="session")
def decoder(tokenizer: Tokenizer) -> Decoder:
    return Decoder(tiny_spec(tokenizer.vocab_size), seed=3).requires_grad_(False)


@pytest.fixture(scope="session")
def reward_model(decoder: Decoder) -> RewardModel:
    model = RewardModel.from_decoder(decoder, seed=4)
    torch.nn.init.constant_(model.score.bias, 2.0)
    return model.requires_grad_(False)


@pytest.fixture
def engine(decoder: Decoder, tokenizer: Tokenizer) -> Engine:
    return Engine(decoder, tokenizer, max_batch=3)
