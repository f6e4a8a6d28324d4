"""DPO and IPO, each with a weighted SFT term on the chosen answer (SPEC 8.2, 8.3)."""

from torch.nn import functional as F

from flywright.train.objectives.base import Objective
from flywright.train.objectives.pairs import preference_objective


def dpo(beta: float, sft_weight: float) -> Objective:
    """-log sigmoid(beta R). At policy == reference it is ln 2."""
    return preference_objective("dpo", lambda R_P, _: -F.logsigmoid(beta * R_P), sft_weight)


def ipo(beta: float, sft_weight: float) -> Objective:
    """(R - 1 / (2 beta))^2, R of sums over tokens; stationary at a margin that beta sets."""
    return preference_objective("ipo", lambda R_P, _: (R_P - 0.5 / beta).square(), sft_weight)
