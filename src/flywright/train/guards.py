"""Guards that refuse to train, because going on would be silently wrong (HOUSE section 4)."""

import math

import torch

from flywright.data.batch import Sample
from flywright.data.examples import Examples
from flywright.errors import GuardError
from flywright.tokenizer import Tokenizer, chat

MOVED = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 5e-2}  # nats a token


def refuse_empty(examples: Examples, what: str, masked: bool = True) -> None:
    """Nothing to train on, or (where a mask says what is trained) a document with an empty one."""
    if not examples.samples:
        raise GuardError(f"{what}: no sample fits ({examples.over_length} are over-length)")
    for number, sample in enumerate(examples.samples if masked else ()):
        if not all(mask[1:].any() for mask in sample.masks):
            raise GuardError(f"{what}: sample {number} has an empty mask: nothing is trained in it")


def refuse_untrained_end(samples: list[Sample], tokenizer: Tokenizer, what: str) -> None:
    """The end of turn is never a trained token: the model would never stop."""
    turn = chat.end_ids(tokenizer)[0]
    for sample in samples:
        for ids, mask in zip(sample.documents, sample.masks, strict=True):
            if bool(((ids == turn) & mask).any()):
                return
    name = tokenizer.piece(turn)
    raise GuardError(f"{what}: {name} is never trained; the model would never end a turn")


def refuse_over_length(examples: Examples, most: float, what: str) -> None:
    """More than the stated share of records does not fit the context."""
    share = examples.over_length_share
    if share > most:
        raise GuardError(
            f"{what}: {share:.1%} of the records are over-length, more than "
            f"max_over_length_share = {most:.1%}; raise it or the context length"
        )


def refuse_other_format(found: str, expected: str, where: str) -> None:
    """The checkpoint was trained with another chat format."""
    if found and found != expected:
        raise GuardError(
            f"{where}: chat format {found} differs from this code's {expected}; "
            "training on would mix two formats"
        )


def refuse_not_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise GuardError(f"step {step}: loss is {loss}; stopped at the last good state")


def refuse_moved_reference(gap: float, dtype: torch.dtype) -> None:
    """At step 0 the policy is the reference: other log-probabilities mean another model or data.

    gap: their distance in nats a token; what rounding makes of it depends on what is computed in.
    """
    most = MOVED[dtype]
    if not gap <= most:
        raise GuardError(
            f"reference log-probabilities differ from the policy's at step 0 by {gap:.4f} a token "
            f"(limit {most}): they belong to other weights or other data"
        )
