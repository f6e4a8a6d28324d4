"""Language modelling and SFT: mean negative log-probability of the trained tokens (SPEC 8.1).

They differ in the mask alone: every token but a window's first, or the assistant's words and end of
turn.
"""

import torch

from flywright.data.batch import Batch
from flywright.train.objectives.base import Objective, trained_logprobs, trained_tokens


def _loss(logprob_M: torch.Tensor, _batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return -logprob_M.sum(), {}


def language_model() -> Objective:
    """Averaged over the trained tokens of the whole global batch."""
    return Objective("lm", trained_logprobs, _loss, trained_tokens)


def sft() -> Objective:
    """The same, under its own name."""
    return Objective("sft", trained_logprobs, _loss, trained_tokens)
