"""The decoder: embedding, layers, final norm, output head; written for one device.

Module names are Hugging Face's, so that a state dict is a checkpoint's tensor list.
Shapes: B batch, T positions, D hidden, V vocabulary.
"""

import math

import torch
from torch import Tensor, nn

from flywright.model.attention import Attend, Attention, causal
from flywright.model.mlp import mlp
from flywright.model.norm import stream_norm
from flywright.model.rotary import rotary_tables
from flywright.spec import ModelSpec


class Layer(nn.Module):
    """Pre-norm attention and pre-norm MLP, each added to the stream."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.input_layernorm = stream_norm(spec)
        self.self_attn = Attention(spec)
        self.post_attention_layernorm = stream_norm(spec)
        self.mlp = mlp(spec)

    def forward(
        self, x_BTD: Tensor, tables: tuple[Tensor, Tensor], index: int, attend: Attend
    ) -> Tensor:
        """The stream after this layer."""
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), tables, index, attend)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Body(nn.Module):
    """Everything but the head: ids to the final norm's output."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.spec = spec
        self.embed_tokens = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.layers = nn.ModuleList(Layer(spec) for _ in range(spec.layers))
        self.norm = stream_norm(spec)

    def forward(
        self, ids_BT: Tensor, positions_BT: Tensor | None = None, attend: Attend = causal
    ) -> Tensor:
        """Hidden states [B, T, D] after the final norm."""
        if positions_BT is None:
            positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device)[None]
        tables = rotary_tables(positions_BT, self.spec)
        x_BTD = self.embed_tokens(ids_BT)
        for index, layer in enumerate(self.layers):
            x_BTD = layer(x_BTD, tables, index, attend)
        return self.norm(x_BTD)

    def initialise(self, generator: torch.Generator) -> None:
        """Normal weights of the spec's std; output projections scaled by 1/sqrt(2 layers).

        A small model wants a larger std for its input embedding: else the first layers' output
        drowns which token stands where, and copying is learned late.
        """
        scaled = self.spec.init_std / math.sqrt(2 * self.spec.layers)
        for name, parameter in self.named_parameters():
            if "norm" in name:
                continue
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
                continue
            is_output = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = scaled if is_output else self.spec.init_std
            if name.startswith("embed_tokens") and self.spec.embedding_std:
                std = self.spec.embedding_std
            nn.init.normal_(parameter, std=std, generator=generator)


class Decoder(nn.Module):
    """A language model: `model(ids_BT) -> logits_BTV`."""

    def __init__(self, spec: ModelSpec, seed: int | None = None):
        super().__init__()
        self.spec = spec
        self.model = Body(spec)
        self.lm_head = nn.Linear(spec.hidden_size, spec.vocab_size, bias=False)
        self.tie()
        if seed is not None:
            self._initialise(torch.Generator().manual_seed(seed))

    def tie(self) -> None:
        """Make the head the input embedding itself, where the spec ties them."""
        if self.spec.tied_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def _initialise(self, generator: torch.Generator) -> None:
        self.model.initialise(generator)
        if not self.spec.tied_embeddings:
            nn.init.normal_(self.lm_head.weight, std=self.spec.init_std, generator=generator)

    def hidden(
        self, ids_BT: Tensor, positions_BT: Tensor | None = None, attend: Attend = causal
    ) -> Tensor:
        """Hidden states [B, T, D] after the final norm; `attend` is what attends to what."""
        return self.model(ids_BT, positions_BT, attend)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits [B, T, V] of the next token at each position."""
        return self.lm_head(self.hidden(ids_BT))
