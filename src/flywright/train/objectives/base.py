"""What an objective is: which outputs it reads, its loss, and what it is averaged over."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flywright.data.batch import Batch
from flywright.model import Decoder, RewardModel
from flywright.model.attention import packed
from flywright.model.logprobs import token_logprobs
from flywright.parallel import local_rows

Model = Decoder | RewardModel
Loss = Callable[[Tensor, Batch], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Objective:
    """`outputs(model, batch, hidden_ND=None)` -> tensor, hidden states computed unless given;
    `loss(outputs, batch)` -> sums; `count(batch)` -> divisor.

    Metrics come as sums too and are divided by the same count; `health(means)` adds figures made of
    them, those with a leading "_" are then dropped. `start(means, dtype)` sees those of the first
    step, and refuses (GuardError) what cannot be at a start.
    """

    name: str
    outputs: Callable[..., Tensor]
    loss: Loss
    count: Callable[[Batch], float]
    health: Callable[[dict[str, float]], dict[str, float]] = lambda _means: {}
    start: Callable[[dict[str, float], torch.dtype], None] = lambda _means, _dtype: None


def batch_hidden(model: Model, batch: Batch) -> Tensor:
    """Hidden states [N, D] of all tokens, documents kept apart."""
    return through(model, batch, batch.ids_N[None])[0]


def through(model: Model, batch: Batch, x_1N: Tensor) -> Tensor:
    """What a model, or one chunk of it, makes of a batch's ids or of the chunk before's stream."""
    attend = packed(batch.lengths, batch.parents)
    return model.hidden(x_1N, batch.positions_N[None], attend)


def trained_logprobs(model: Model, batch: Batch, hidden_ND: Tensor | None = None) -> Tensor:
    """log p [M] of each trained token; the output matrix meets trained positions only."""
    hidden_ND = batch_hidden(model, batch) if hidden_ND is None else hidden_ND
    assert isinstance(model, Decoder)
    weight_VD, group = local_rows(model.lm_head.weight)
    return token_logprobs(hidden_ND[batch.trained_M], weight_VD, batch.targets_M, group)
