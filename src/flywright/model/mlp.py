"""The MLP: up, squared ReLU, down; two matrices, no gate, no bias (SPEC 1.1)."""

from torch import Tensor, nn
from torch.nn import functional as F

from flywright.spec import ModelSpec


class SquaredReluMlp(nn.Module):
    """down(relu(up(x))^2)."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.up_proj = nn.Linear(spec.hidden_size, spec.ffn_size, bias=False)
        self.down_proj = nn.Linear(spec.ffn_size, spec.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Same shape as x."""
        return self.down_proj(F.relu(self.up_proj(x_BTD)).square())
