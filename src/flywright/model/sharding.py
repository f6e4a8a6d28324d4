"""Placements of the decoder and the reward model: which module is cut how. Data, no torch.

`parallel.apply(module, mesh, DECODER)` puts them on from outside; parallel/tensor.py explains the
words. Tied embeddings are refused: they would need a sum over the pipeline's ends.
"""

from flywright.spec import PlacementSpec

DECODER = PlacementSpec(
    tensor={
        "model.embed_tokens": "vocab",
        "*layernorm": "sequence",
        "*.self_attn": "gather",
        "*.self_attn.[qkv]_proj": "column",  # a rank holds whole heads
        "*.self_attn.[qk]_norm": "heads",
        "*.self_attn.o_proj": "row",
        "*.mlp": "gather",
        "*.mlp.gate_proj": "column",
        "*.mlp.up_proj": "column",
        "*.mlp.down_proj": "row",
        "model.norm": "whole",
        "lm_head": "head",
        "score": "replicate",
    },
    layers="model.layers",
    first=("model.embed_tokens",),
    last=("model.norm", "lm_head"),
)
REWARD = DECODER.model_copy(update={"last": ("model.norm", "score"), "precise": "score"})
