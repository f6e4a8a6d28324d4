"""SFT: the language-model loss on the assistant's words and end of turn only (SPEC 8.1)."""

import torch

from flywright.data.batch import Batch
from flywright.train.objectives.base import Objective, trained_logprobs, trained_tokens


def _loss(logprob_M: torch.Tensor, _batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return -logprob_M.sum(), {}


def sft() -> Objective:
    """Averaged over the trained tokens of the whole global batch."""
    return Objective("sft", trained_logprobs, _loss, trained_tokens)
