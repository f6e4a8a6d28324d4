"""AdamW or Muon on fp32 master weights; the model may be bf16 and is written from the masters.

Norm weights and biases are not decayed (SPEC 1.1). Gradients of micro-batches add up in fp32.
Muon (torch's own) moves the matrices between the layers, at steps of AdamW's size, so that rates
carry over; embeddings, head and norms stay AdamW's.
"""

import torch
from torch import nn

from flywright.train.settings import TrainSettings


class MasterOptimizer:
    """Master weights, their optimizer, and the way from and to the parameters that are trained."""

    def __init__(self, model: nn.Module, settings: TrainSettings):
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.masters = {
            name: parameter.detach().float().clone().requires_grad_()
            for name, parameter in self._parameters.items()
        }
        groups: dict[str, list[nn.Parameter | torch.Tensor]] = {
            "muon": [],
            "adamw": [],
            "plain": [],
        }
        for name, master in self.masters.items():
            groups[_group(name, master, settings.optimizer)].append(master)
        decay, betas = settings.weight_decay, (settings.beta1, settings.beta2)
        adamw = [
            {"params": groups["adamw"], "weight_decay": decay},
            {"params": groups["plain"], "weight_decay": 0.0},
        ]
        rate = settings.learning_rate
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(adamw, lr=rate, betas=betas, fused=True)
        ]
        if groups["muon"]:
            muon = torch.optim.Muon(
                groups["muon"], lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
            )
            self._parts.append(muon)

    def collect(self) -> None:
        """Add the model's gradients to the masters' and clear the model's."""
        for name, parameter in self._parameters.items():
            if parameter.grad is None:
                continue
            master = self.masters[name]
            gradient = parameter.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    def step(self, rate: float, clip: float) -> float:
        """One update at `rate` with gradients clipped to norm `clip`; returns the norm before."""
        norm = nn.utils.clip_grad_norm_(list(self.masters.values()), clip)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
            part.zero_grad(set_to_none=True)
        self.write_to_model()
        return float(norm)

    @torch.no_grad()
    def write_to_model(self) -> None:
        """Round the masters into the model's parameters."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self.masters[name])

    @torch.no_grad()
    def release(self) -> None:
        """Leave the trained parameters in fp32 with the masters' exact values."""
        for name, parameter in self._parameters.items():
            parameter.data = self.masters[name].detach()

    def state(self) -> dict[str, torch.Tensor]:
        """Every tensor of the training state, by name."""
        tensors = {f"master.{name}": master.detach() for name, master in self.masters.items()}
        for name, master in self.masters.items():
            for part in self._parts:
                for key, value in part.state.get(master, {}).items():
                    tensors[f"{key}.{name}"] = value
        return tensors

    @torch.no_grad()
    def load_masters(self, tensors: dict[str, torch.Tensor]) -> None:
        """The weights of a state alone."""
        for name, master in self.masters.items():
            master.copy_(tensors[f"master.{name}"])
        self.write_to_model()

    @torch.no_grad()
    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Back from `state`."""
        self.load_masters(tensors)
        owners = {
            id(master): part
            for part in self._parts
            for group in part.param_groups
            for master in group["params"]
        }
        for name, master in self.masters.items():
            kept = {
                key: tensors[f"{key}.{name}"].to(master.device, copy=True)
                for key in ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")
                if f"{key}.{name}" in tensors
            }
            owners[id(master)].state[master] = kept


def _group(name: str, master: torch.Tensor, optimizer: str) -> str:
    if master.dim() <= 1 or "norm" in name:
        return "plain"
    return "muon" if optimizer == "muon" and ".layers." in name else "adamw"
