"""The one log-probability op: no full-logit tensor, exact gradients (HOUSE law 7).

SFT, DPO, RPO, reference scoring and evaluation all take their token log-probabilities from here.
Logits exist for a tile at a time: some tokens by some of the vocabulary, kept in the cache.
With a process group each rank holds rows of the output matrix, and sums over the vocabulary go over
its ranks. Shapes: N tokens, D hidden, V vocabulary (a rank's own); R, C rows and columns of a tile.
The slow twin is `token_logprobs_naive`.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

FEWEST_ROWS, MOST_ROWS = 64, 1024  # tokens whose logits exist at one time
MOST_COLUMNS = 16_384  # and of the vocabulary
TILE = 1 << 22  # logits of a tile that the cache holds


def _slices(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(total, start + size)) for start in range(0, total, size))


def _tile(vocabulary: int) -> tuple[int, int]:
    columns = min(vocabulary, MOST_COLUMNS)
    return max(FEWEST_ROWS, min(MOST_ROWS, TILE // columns)), columns


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        group: dist.ProcessGroup | None,
    ) -> Tensor:
        if group is not None:  # in this rank's rows; others' targets lie outside of them
            targets_N = targets_N - dist.get_rank(group) * len(weight_VD)
        precise = _precise(hidden_ND)
        tokens, vocabulary = len(targets_N), len(weight_VD)
        size, width = _tile(vocabulary)
        picked_N = hidden_ND.new_zeros(tokens, dtype=precise)
        logsum_N = hidden_ND.new_full((tokens,), -torch.inf, dtype=precise)
        for rows in _slices(tokens, size):
            for columns in _slices(vocabulary, width):
                logits_RC = (hidden_ND[rows] @ weight_VD[columns].T).to(precise)
                row_H, column_H = _hits(targets_N[rows], columns)
                picked_N[rows][row_H] = logits_RC[row_H, column_H]
                top_R1 = logits_RC.amax(-1, keepdim=True)
                tile_R = logits_RC.sub_(top_R1).exp_().sum(-1).log_() + top_R1[:, 0]
                logsum_N[rows] = torch.logaddexp(logsum_N[rows], tile_R)
        if group is not None:
            _sum_over(picked_N, logsum_N, group)
        ctx.group = group
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N, logsum_N)
        return picked_N - logsum_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad_N,) = gradients
        hidden_ND, weight_VD, targets_N, logsum_N = ctx.saved_tensors
        size, width = _tile(len(weight_VD))
        grad_hidden_ND = torch.zeros_like(hidden_ND, dtype=logsum_N.dtype)
        wanted = ctx.needs_input_grad[1]  # not of a head that is frozen
        grad_weight_VD = torch.empty_like(weight_VD) if wanted else None
        for columns in _slices(len(weight_VD), width):
            grad_CD = torch.zeros_like(weight_VD[columns], dtype=logsum_N.dtype)
            for rows in _slices(len(targets_N), size):
                logits_RC = (hidden_ND[rows] @ weight_VD[columns].T).to(logsum_N.dtype)
                # d logprob / d logits = onehot(target) - softmax
                slope_RC = logits_RC.sub_(logsum_N[rows, None]).exp_().mul_(-grad_N[rows, None])
                row_H, column_H = _hits(targets_N[rows], columns)
                slope_RC[row_H, column_H] += grad_N[rows][row_H]
                slope_RC = slope_RC.to(hidden_ND.dtype)
                grad_hidden_ND[rows] += slope_RC @ weight_VD[columns]
                if wanted:
                    grad_CD += slope_RC.T @ hidden_ND[rows]
            if grad_weight_VD is not None:
                grad_weight_VD[columns] = grad_CD
        if ctx.group is not None:
            dist.all_reduce(grad_hidden_ND, group=ctx.group)
        return grad_hidden_ND.to(hidden_ND.dtype), grad_weight_VD, None, None


def _sum_over(picked_N: Tensor, logsum_N: Tensor, group: dist.ProcessGroup) -> None:
    """Each rank's part of the vocabulary to the whole of it, in place."""
    top_N = logsum_N.clone()
    dist.all_reduce(top_N, dist.ReduceOp.MAX, group=group)
    both_2N = torch.stack([picked_N, (logsum_N - top_N).exp()])
    dist.all_reduce(both_2N, group=group)
    picked_N.copy_(both_2N[0])
    logsum_N.copy_(both_2N[1].log() + top_N)


def _hits(targets_R: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Rows whose target lies in a tile's columns, and in which of them."""
    inside_R = (targets_R >= columns.start) & (targets_R < columns.stop)
    row_H = inside_R.nonzero()[:, 0]
    return row_H, targets_R[row_H] - columns.start


def _precise(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def token_logprobs(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, group: dist.ProcessGroup | None = None
) -> Tensor:
    """log p(target) [N] in fp32 (fp64 for fp64 input), from hidden states and the output matrix.

    group: its ranks hold the matrix's rows in their order, equally many each; hidden states,
    targets and what comes back are the same on all of them.

    Memory beside inputs and their gradients does not grow with V: a tile of logits, the gradient of
    its columns, and the hidden states' gradient in fp32.
    """
    found: Any = _TokenLogprobs.apply(hidden_ND, weight_VD, targets_N, group)
    return found


def token_logprobs_naive(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """The same through the full logit tensor; the twin that tests compare with."""
    logits_NV = (hidden_ND @ weight_VD.T).to(_precise(hidden_ND))
    return torch.log_softmax(logits_NV, dim=-1).gather(1, targets_N[:, None]).squeeze(1)
