"""A tiny model and tokenizer for the tests of this room."""

import pytest
import torch

from flywright.generate import Engine
from flywright.model import Decoder, RewardModel
from flywright.tokenizer import Tokenizer
from tiny_model import spec_of, train_tiny


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tiny()


@pytest.fixture(scope="session")
def decoder(tokenizer: Tokenizer) -> Decoder:
    return Decoder(spec_of(tokenizer), seed=3).requires_grad_(False)


@pytest.fixture(scope="session")
def reward_model(decoder: Decoder) -> RewardModel:
    model = RewardModel.from_decoder(decoder, seed=4)
    torch.nn.init.constant_(model.score.bias, 2.0)
    return model.requires_grad_(False)


@pytest.fixture
def engine(decoder: Decoder, tokenizer: Tokenizer) -> Engine:
    return Engine(decoder, tokenizer, max_batch=3)
