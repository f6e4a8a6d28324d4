"""The one log-probability op: no full-logit tensor, exact gradients (HOUSE law 7).

SFT, DPO, RPO, reference scoring and evaluation all take their token log-probabilities from here.
Shapes: N tokens, D hidden, V vocabulary. The slow twin is `token_logprobs_naive`.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

FEWEST_ROWS, MOST_ROWS = 64, 1024  # tokens whose logits exist at one time
CHUNK = 1 << 22  # logits of a chunk that the cache holds


def _chunks(tokens: int, vocabulary: int) -> Iterator[slice]:
    """Rows of tokens whose logits stay in the cache while they are worked on."""
    rows = max(FEWEST_ROWS, min(MOST_ROWS, CHUNK // vocabulary))
    return (slice(start, start + rows) for start in range(0, tokens, rows))


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
        logprob_N = hidden_ND.new_empty(targets_N.shape, dtype=_precise(hidden_ND))
        logsum_N = torch.empty_like(logprob_N)
        for rows in _chunks(len(targets_N), len(weight_VD)):
            logits_RV = (hidden_ND[rows] @ weight_VD.T).to(logprob_N.dtype)
            picked_R = logits_RV.gather(1, targets_N[rows, None]).squeeze(1)
            top_R1 = logits_RV.amax(-1, keepdim=True)
            logsum_N[rows] = logits_RV.sub_(top_R1).exp_().sum(-1).log_() + top_R1[:, 0]
            logprob_N[rows] = picked_R - logsum_N[rows]
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N, logsum_N)
        return logprob_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad_N,) = gradients
        hidden_ND, weight_VD, targets_N, logsum_N = ctx.saved_tensors
        grad_hidden_ND = torch.empty_like(hidden_ND)
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=logsum_N.dtype)
        for rows in _chunks(len(targets_N), len(weight_VD)):
            logits_RV = (hidden_ND[rows] @ weight_VD.T).to(logsum_N.dtype)
            # d logprob / d logits = onehot(target) - softmax
            slope_RV = logits_RV.sub_(logsum_N[rows, None]).exp_().mul_(-grad_N[rows, None])
            slope_RV[torch.arange(len(slope_RV)), targets_N[rows]] += grad_N[rows]
            slope_RV = slope_RV.to(hidden_ND.dtype)
            grad_hidden_ND[rows] = slope_RV @ weight_VD
            grad_weight_VD += slope_RV.T @ hidden_ND[rows]
        return grad_hidden_ND, grad_weight_VD.to(weight_VD.dtype), None


def _precise(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def token_logprobs(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """log p(target) [N] in fp32 (fp64 for fp64 input), from hidden states and the output matrix."""
    return _TokenLogprobs.apply(hidden_ND, weight_VD, targets_N)  # type: ignore[return-value]


def token_logprobs_naive(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """The same through the full logit tensor; the twin that tests compare with."""
    logits_NV = (hidden_ND @ weight_VD.T).to(_precise(hidden_ND))
    return torch.log_softmax(logits_NV, dim=-1).gather(1, targets_N[:, None]).squeeze(1)
