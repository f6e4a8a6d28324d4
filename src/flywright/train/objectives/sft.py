"""Language modelling and SFT: mean negative log-probability of the trained tokens (SPEC 8.1).

They differ in the mask alone: every token but a window's first, or the assistant's words and end of
turn.
"""

from torch import Tensor

from flywright.data.batch import Batch
from flywright.train.objectives.base import Objective, trained_logprobs


def language_model(name: str = "lm") -> Objective:
    """Averaged over the trained tokens of the whole global batch."""

    def loss(logprob_M: Tensor, _batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return -logprob_M.sum(), {}

    return Objective(name, trained_logprobs, loss, lambda batch: float(batch.trained_tokens))


def sft() -> Objective:
    """The same, under its own name."""
    return language_model("sft")
