"""The reward model: the decoder's body with a linear head on the last token (SPEC 5.1).

Its labels are ATTRIBUTES, or the nine of the released model (SPEC 5.1), of which the first four
were never trained and weigh nothing.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from flywright.model.attention import Attend, causal
from flywright.model.decoder import Body, Decoder, InitialTensors
from flywright.records import ATTRIBUTES, REWARD_WEIGHTS
from flywright.spec import ModelSpec

NINE_LABELS = ("quality", "toxicity", "humor", "creativity", *ATTRIBUTES)
NINE_WEIGHTS = (0.0, 0.0, 0.0, 0.0, *REWARD_WEIGHTS)


class RewardModel(nn.Module):
    """`model(ids_BT) -> [B, labels]`, read at the last position, in the order of `labels`.

    The head (`score`) stays in fp32, whatever the body's dtype. It has a bias where the final norm
    has one that can hold it for other tools (`fold_bias`). `label_weights` are those of the
    weighted sum that is the reward.
    """

    def __init__(
        self,
        spec: ModelSpec,
        labels: tuple[str, ...] = ATTRIBUTES,
        label_weights: tuple[float, ...] = REWARD_WEIGHTS,
    ):
        super().__init__()
        self.spec, self.labels, self.label_weights = spec, labels, label_weights
        self.model = Body(spec)
        has_bias = spec.norm == "layernorm1p"
        self.score = nn.Linear(spec.hidden_size, len(labels), bias=has_bias, dtype=torch.float32)

    @classmethod
    def from_decoder(
        cls, decoder: Decoder, seed: int, bias: Sequence[float] = (0.0,) * len(ATTRIBUTES)
    ) -> "RewardModel":
        """A new head on a copy of a pretrained body; `bias` is where its attributes start, if it
        has one. The output matrix is gone, so tied embeddings are just the input's.
        """
        model, tensors = cls.start(decoder.spec, decoder.state_dict(), seed, bias)
        model.to_empty(device="cpu").load_state_dict(tensors)
        return model

    @classmethod
    def start(
        cls, spec: ModelSpec, tensors: Mapping[str, Tensor], seed: int, bias: Sequence[float]
    ) -> tuple["RewardModel", dict[str, Tensor]]:
        """`from_decoder` of a decoder's tensors: the model on the meta device, and its tensors."""
        with torch.device("meta"):
            model = cls(spec).to(tensors["model.embed_tokens.weight"].dtype)
        model.score.float()
        head = InitialTensors(model, spec, seed)
        found = {name: (head if name.startswith("score.") else tensors)[name] for name in head}
        if "score.bias" in found:
            found["score.bias"] = torch.tensor(bias, dtype=torch.float32)
        return model, found

    def hidden(
        self, ids_BT: Tensor, positions_BT: Tensor | None = None, attend: Attend = causal
    ) -> Tensor:
        """Hidden states [B, T, D] after the final norm."""
        return self.model(ids_BT, positions_BT, attend)

    def attributes(self, hidden_BD: Tensor) -> Tensor:
        """Outputs [B, labels] from the scored token's hidden state, in the head's own dtype."""
        return self.score(hidden_BD.to(self.score.weight.dtype))

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Outputs [B, labels] at the last position."""
        return self.attributes(self.hidden(ids_BT)[:, -1])

    @torch.no_grad()
    def fold_bias(self) -> None:
        """Move the head's bias into the final norm's, where transformers' biasless head finds it.

        W (x + pinv(W) b) = W x + b: exact while W has full row rank.
        """
        if self.score.bias is None:
            return
        weight, bias = self.score.weight.double(), self.score.bias.double()
        shift_D = torch.linalg.pinv(weight) @ bias
        self.model.norm.bias.data = (self.model.norm.bias.double() + shift_D).to(
            self.model.norm.bias.dtype
        )
        self.score.bias.zero_()
