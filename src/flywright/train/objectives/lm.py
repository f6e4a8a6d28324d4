"""Language modelling: mean negative log-probability a token."""

from flywright.train.objectives.base import Objective, trained_logprobs, trained_tokens


def language_model() -> Objective:
    """Every token but a window's first is trained."""
    return Objective(
        "lm", trained_logprobs, lambda logprob_M, _batch: (-logprob_M.sum(), {}), trained_tokens
    )
