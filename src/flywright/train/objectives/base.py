"""What an objective is: which outputs it reads, its loss, and what it is averaged over."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from flywright.data.batch import Batch
from flywright.model import Decoder, RewardModel
from flywright.model.attention import packed
from flywright.model.logprobs import token_logprobs

Model = Decoder | RewardModel
Loss = Callable[[torch.Tensor, Batch], tuple[torch.Tensor, dict[str, torch.Tensor]]]


@dataclass(frozen=True)
class Objective:
    """`outputs(model, batch)` -> tensor; `loss(outputs, batch)` -> sums; `count(batch)` -> divisor.

    Metrics come as sums too and are divided by the same count; `health(means)` adds figures made of
    them, those with a leading "_" are then dropped. `start(means, dtype)` sees those of the first
    step, and refuses (GuardError) what cannot be at a start.
    """

    name: str
    outputs: Callable[[Model, Batch], torch.Tensor]
    loss: Loss
    count: Callable[[Batch], float]
    health: Callable[[dict[str, float]], dict[str, float]] = lambda _means: {}
    start: Callable[[dict[str, float], torch.dtype], None] = lambda _means, _dtype: None


def batch_hidden(model: Model, batch: Batch) -> torch.Tensor:
    """Hidden states [N, D] of all tokens, documents kept apart."""
    attend = packed(batch.lengths, batch.parents)
    return model.hidden(batch.ids_N[None], batch.positions_N[None], attend)[0]


def trained_logprobs(model: Model, batch: Batch) -> torch.Tensor:
    """log p [M] of each trained token; the output matrix meets trained positions only."""
    assert isinstance(model, Decoder)
    hidden_MD = batch_hidden(model, batch)[batch.trained_M]
    return token_logprobs(hidden_MD, model.lm_head.weight, batch.targets_M)


def trained_tokens(batch: Batch) -> float:
    """Divisor of LM and SFT: trained tokens."""
    return float(batch.trained_tokens)
