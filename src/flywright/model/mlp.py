"""The MLPs: Nemotron's squared ReLU (SPEC 1.1), and the gated one of the other families."""

from torch import Tensor, nn
from torch.nn import functional as F

from flywright.spec import ModelSpec


class SquaredReluMlp(nn.Module):
    """down(relu(up(x))^2): two matrices, no gate, no bias."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.up_proj = nn.Linear(spec.hidden_size, spec.ffn_size, bias=False)
        self.down_proj = nn.Linear(spec.ffn_size, spec.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Same shape as x."""
        return self.down_proj(F.relu(self.up_proj(x_BTD)).square())


class SwigluMlp(nn.Module):
    """down(silu(gate(x)) * up(x)): three matrices, no bias."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.gate_proj = nn.Linear(spec.hidden_size, spec.ffn_size, bias=False)
        self.up_proj = nn.Linear(spec.hidden_size, spec.ffn_size, bias=False)
        self.down_proj = nn.Linear(spec.ffn_size, spec.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Same shape as x."""
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


def mlp(spec: ModelSpec) -> nn.Module:
    """The MLP that the spec names."""
    return SwigluMlp(spec) if spec.mlp == "swiglu" else SquaredReluMlp(spec)
