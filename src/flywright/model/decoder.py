"""The decoder: embedding, layers, final norm, output head; written for one device.

Module names are Hugging Face's, so that a state dict is a checkpoint's tensor list.
Shapes: B batch, T positions, D hidden, V vocabulary.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from flywright.files import seed_from
from flywright.model.attention import Attend, Attention, causal
from flywright.model.mlp import Mlp
from flywright.model.norm import RMSNorm, stream_norm
from flywright.model.rotary import rotary_tables
from flywright.spec import ModelSpec


class Layer(nn.Module):
    """Pre-norm attention and pre-norm MLP, each added to the stream."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.input_layernorm = stream_norm(spec)
        self.self_attn = Attention(spec)
        self.post_attention_layernorm = stream_norm(spec)
        self.mlp = Mlp(spec)

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


class Decoder(nn.Module):
    """A language model: `model(ids_BT) -> logits_BTV`."""

    def __init__(self, spec: ModelSpec, seed: int | None = None):
        super().__init__()
        self.spec = spec
        self.model = Body(spec)
        self.lm_head = nn.Linear(spec.hidden_size, spec.vocab_size, bias=False)
        self.tie()
        if seed is not None:
            initial = InitialTensors(self, spec, seed)
            for name, parameter in self.named_parameters():
                parameter.data.copy_(initial[name])

    def tie(self) -> None:
        if self.spec.tied_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def hidden(
        self, ids_BT: Tensor, positions_BT: Tensor | None = None, attend: Attend = causal
    ) -> Tensor:
        """Hidden states [B, T, D] after the final norm; `attend` is what attends to what."""
        return self.model(ids_BT, positions_BT, attend)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits [B, T, V] of the next token at each position."""
        return self.lm_head(self.hidden(ids_BT))


class InitialTensors(Mapping[str, Tensor]):
    """A model's tensors as training starts, made when asked for, whole and in fp32.

    Each is a function of seed and name alone: a rank makes what it holds. `model` may be on meta.
    """

    def __init__(self, model: nn.Module, spec: ModelSpec, seed: int):
        self._spec, self._seed, self._model = spec, seed, model
        self._shapes = {name: each.shape for name, each in model.named_parameters()}

    def __getitem__(self, name: str) -> Tensor:
        """Normal values of the spec's std; output projections' scaled by 1/sqrt(2 layers).

        A small model wants a larger std for its input embedding: else the first layers' output
        drowns which token stands where, and copying is learned late.
        """
        tensor = torch.zeros(self._shapes[name])
        if "norm" in name or name.endswith("bias"):
            owner = self._model.get_submodule(name.rpartition(".")[0])
            return tensor.fill_(isinstance(owner, RMSNorm))
        std = self._spec.init_std
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            std /= math.sqrt(2 * self._spec.layers)
        elif name.endswith("embed_tokens.weight"):
            std = self._spec.embedding_std or std
        generator = torch.Generator().manual_seed(seed_from(self._seed, name))
        return tensor.normal_(std=std, generator=generator)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
