"""The MLPs: Nemotron's squared ReLU (SPEC 1.1), and the gated one of the other families."""

from torch import Tensor, nn
from torch.nn import functional as F

from flywright.spec import ModelSpec


class Mlp(nn.Module):
    """down(relu(up(x))^2), or with a gate down(silu(gate(x)) * up(x)); no biases."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.is_gated = spec.mlp == "swiglu"
        if self.is_gated:
            self.gate_proj = nn.Linear(spec.hidden_size, spec.ffn_size, bias=False)
        self.up_proj = nn.Linear(spec.hidden_size, spec.ffn_size, bias=False)
        self.down_proj = nn.Linear(spec.ffn_size, spec.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.is_gated:
            return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return self.down_proj(F.relu(self.up_proj(x_BTD)).square())
