"""AdamW on fp32 master weights; the model may be bf16 and is written from the masters.

Norm weights and biases are not decayed (SPEC 1.1). Gradients of micro-batches add up in fp32.
"""

import torch
from torch import nn

from flywright.train.settings import TrainSettings


class MasterAdamW:
    """Master weights, their AdamW, and the way from and to the model's parameters."""

    def __init__(self, model: nn.Module, settings: TrainSettings):
        self._parameters = dict(model.named_parameters())
        self.masters = {
            name: parameter.detach().float().clone().requires_grad_()
            for name, parameter in self._parameters.items()
        }
        decayed = [m for n, m in self.masters.items() if m.dim() > 1 and "norm" not in n]
        plain = [m for n, m in self.masters.items() if m.dim() <= 1 or "norm" in n]
        groups = [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        betas = (settings.beta1, settings.beta2)
        self._adam = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, fused=True)

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
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self.write_to_model()
        return float(norm)

    @torch.no_grad()
    def write_to_model(self) -> None:
        """Round the masters into the model's parameters."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self.masters[name])

    @torch.no_grad()
    def release(self) -> None:
        """Leave the model in fp32 with the masters' exact values."""
        for name, parameter in self._parameters.items():
            parameter.data = self.masters[name].detach()

    def state(self) -> dict[str, torch.Tensor]:
        """Every tensor of the training state, by name."""
        tensors = {f"master.{name}": master.detach() for name, master in self.masters.items()}
        for name, master in self.masters.items():
            for key, value in self._adam.state.get(master, {}).items():
                tensors[f"{key}.{name}"] = value
        return tensors

    @torch.no_grad()
    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Back from `state`."""
        for name, master in self.masters.items():
            master.copy_(tensors[f"master.{name}"])
            keys = ("step", "exp_avg", "exp_avg_sq")
            self._adam.state[master] = {key: tensors[f"{key}.{name}"].clone() for key in keys}
        self.write_to_model()
