"""Placements of the decoder and the reward model: which module is cut how. Data, no torch.

`parallel.apply(module, mesh, DECODER)` puts them on from outside. Norms on the heads (Qwen 3) have
no placement yet, and tied embeddings are refused: both would need a sum over ranks of their own.
"""

from flywright.spec import PlacementSpec

DECODER = PlacementSpec(
    tensor={
        "model.embed_tokens": "vocab",
        "*layernorm": "replicate",
        "model.norm": "replicate",
        "*.self_attn.[qkv]_proj": "column",  # a rank holds whole heads
        "*.self_attn.o_proj": "row",
        "*.mlp.gate_proj": "column",
        "*.mlp.up_proj": "column",
        "*.mlp.down_proj": "row",
        "lm_head": "head",
        "score": "replicate",
    },
    layers="model.layers",
    first=("model.embed_tokens",),
    last=("model.norm", "lm_head"),
)
REWARD = DECODER.model_copy(update={"last": ("model.norm", "score")})
