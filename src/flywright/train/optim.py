"""AdamW or Muon on fp32 master weights; the model may be bf16 and is written from the masters.

A parameter that is fp32 already is its own master, and so are the shards of a mesh, which computes
in bf16 on gathered copies of them.
Norm weights and biases are not decayed (SPEC 1.1). Gradients of micro-batches add up in fp32.
Muon (torch's own) moves the matrices between the layers, at steps of AdamW's size, so that rates
carry over; embeddings, head and norms stay AdamW's.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from flywright.errors import UserError
from flywright.parallel import Ranks
from flywright.train.settings import TrainSettings


class MasterOptimizer:
    """Master weights, their optimizer, and the way from and to the parameters that are trained."""

    def __init__(
        self, parts: Sequence[nn.Module], settings: TrainSettings, ranks: Ranks | None = None
    ):
        self._ranks = ranks or Ranks()
        if settings.optimizer == "muon" and self._ranks.mesh is not None:
            raise UserError("train.optimizer: muon takes whole matrices; over a mesh use adamw")
        named = (pair for part in parts for pair in part.named_parameters())
        self._parameters = {n: p for n, p in named if p.requires_grad}
        kept = settings.precision == "fp32" or self._ranks.mesh is not None  # no rounded copy of it
        self.masters = {name: _master(value, kept) for name, value in self._parameters.items()}
        kinds = {
            name: _group(name, self.masters[name], settings.optimizer) for name in self.masters
        }
        muon, adamw, plain = (
            [self.masters[name] for name, kind in kinds.items() if kind == wanted]
            for wanted in ("muon", "adamw", "plain")
        )
        rate, decay = settings.learning_rate, settings.weight_decay
        groups = [{"params": adamw, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
        betas = settings.beta1, settings.beta2
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)
        ]
        if muon:
            how = {"lr": rate, "weight_decay": decay, "adjust_lr_fn": "match_rms_adamw"}
            self._parts.append(torch.optim.Muon(muon, **how))
        for part in self._parts:
            for group in part.param_groups:
                for master in group["params"]:
                    part.state[master] = _first_state(master, part)

    def collect(self) -> None:
        """Add the model's gradients to the masters' and clear the model's."""
        for name, parameter in self._parameters.items():
            master = self.masters[name]
            if parameter.grad is None or master is parameter:
                continue
            gradient = parameter.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    def step(self, rate: float, clip: float) -> float:
        """One update at `rate` with gradients clipped to norm `clip`; returns the norm before."""
        norm = self._norm()
        nn.utils.clip_grads_with_norm_(list(self.masters.values()), clip, norm)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
            part.zero_grad(set_to_none=True)
        self.write_to_model()
        return float(norm)

    def _norm(self) -> torch.Tensor:
        """Of all gradients, those of other ranks among them."""
        gradients = [master.grad for master in self.masters.values() if master.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        return self._ranks.norm(norm)

    @torch.no_grad()
    def write_to_model(self) -> None:
        """Round the masters into the model's parameters."""
        for name, parameter in self._parameters.items():
            if self.masters[name] is not parameter:
                parameter.copy_(self.masters[name])

    @torch.no_grad()
    def release(self) -> None:
        """Leave the trained parameters in fp32 with the masters' exact values."""
        for name, parameter in self._parameters.items():
            if self.masters[name] is not parameter:
                parameter.data = self.masters[name].detach()

    def state(self) -> dict[str, torch.Tensor]:
        """Every tensor of the training state, by name: the tensors themselves, to be filled too."""
        tensors = self.weights()
        for name, master in self.masters.items():
            for part in self._parts:
                for key, value in part.state.get(master, {}).items():
                    tensors[f"{key}.{name}"] = value
        return tensors

    def weights(self) -> dict[str, torch.Tensor]:
        return {f"master.{name}": master.detach() for name, master in self.masters.items()}


def _master(parameter: nn.Parameter, kept: bool) -> torch.Tensor:
    if kept and parameter.dtype in (torch.float32, torch.float64):
        return parameter
    return parameter.detach().float().clone().requires_grad_()


def _first_state(master: torch.Tensor, part: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What an optimizer would make at its first step; here so that a state can be read into it."""
    if isinstance(part, torch.optim.Muon):
        return {"momentum_buffer": torch.zeros_like(master)}
    moments = {name: torch.zeros_like(master) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), dtype=torch.float32, device=master.device), **moments}


def _group(name: str, master: torch.Tensor, optimizer: str) -> str:
    if master.dim() <= 1 or "norm" in name:
        return "plain"
    return "muon" if optimizer == "muon" and ".layers." in name else "adamw"
