"""DPO with a weighted SFT term: -log sigmoid(beta R) + w * L_SFT(chosen) (SPEC 8.2)."""

import torch
from torch.nn import functional as F

from flywright.data.batch import Batch
from flywright.train.objectives.base import Objective, trained_logprobs
from flywright.train.objectives.pairs import pair_count, pair_logprobs, with_sft_term


def dpo(beta: float, sft_weight: float) -> Objective:
    """Averaged over pairs. At policy == reference the preference loss is ln 2."""

    def loss(logprob_M: torch.Tensor, batch: Batch):
        pairs = pair_logprobs(logprob_M, batch)
        preference_P = -F.logsigmoid(beta * pairs.margin_P)
        return with_sft_term(preference_P, pairs, sft_weight, batch)

    return Objective("dpo", trained_logprobs, loss, pair_count)
