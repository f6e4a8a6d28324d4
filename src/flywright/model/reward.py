"""The reward model: the decoder's body with a linear head on the last token (SPEC 5.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flywright.model.attention import Attend, causal
from flywright.model.decoder import Body, Decoder
from flywright.records import ATTRIBUTES
from flywright.spec import ModelSpec


class RewardModel(nn.Module):
    """`model(ids_BT) -> attributes [B, 5]`, read at the last position, in the order of ATTRIBUTES.

    The head (`score`) stays in fp32 with bias, whatever the body's dtype.
    """

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.spec = spec
        self.model = Body(spec)
        self.score = nn.Linear(spec.hidden_size, len(ATTRIBUTES), bias=True, dtype=torch.float32)

    @classmethod
    def from_decoder(
        cls, decoder: Decoder, seed: int, bias: Sequence[float] = (0.0,) * len(ATTRIBUTES)
    ) -> "RewardModel":
        """A new head on a copy of a pretrained body; `bias` is where its attributes start."""
        model = cls(decoder.spec)
        model.to(next(decoder.parameters()).dtype)
        model.score.float()
        model.model.load_state_dict(decoder.model.state_dict())
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(model.score.weight, std=decoder.spec.init_std, generator=generator)
        with torch.no_grad():
            model.score.bias.copy_(torch.tensor(bias))
        return model

    def hidden(
        self, ids_BT: Tensor, positions_BT: Tensor | None = None, attend: Attend = causal
    ) -> Tensor:
        """Hidden states [B, T, D] after the final norm."""
        return self.model(ids_BT, positions_BT, attend)

    def attributes(self, hidden_BD: Tensor) -> Tensor:
        """Five attributes [B, 5] in fp32 from the scored token's hidden state."""
        return self.score(hidden_BD.float())

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Attributes [B, 5] at the last position."""
        return self.attributes(self.hidden(ids_BT)[:, -1])
