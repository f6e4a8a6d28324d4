"""Placements of the decoder and the reward model: which module is cut how. Data, no torch.

`parallel.apply(module, mesh, DECODER)` puts them on from outside.
"""

from flywright.spec import PlacementSpec

DECODER = PlacementSpec(
    tensor={
        "model.embed_tokens": "vocab",
        "model.layers.*.input_layernorm": "replicate",
        "model.layers.*.self_attn.q_proj": "column",  # a rank holds whole heads
        "model.layers.*.self_attn.k_proj": "column",
        "model.layers.*.self_attn.v_proj": "column",
        "model.layers.*.self_attn.o_proj": "row",
        "model.layers.*.post_attention_layernorm": "replicate",
        "model.layers.*.mlp.up_proj": "column",
        "model.layers.*.mlp.down_proj": "row",
        "model.norm": "replicate",
        "lm_head": "head",
    },
    layers="model.layers",
    first=("model.embed_tokens",),
    last=("model.norm", "lm_head"),
)

REWARD = PlacementSpec(
    tensor={
        **{name: way for name, way in DECODER.tensor.items() if name != "lm_head"},
        "score": "replicate",
    },
    layers=DECODER.layers,
    first=DECODER.first,
    last=("model.norm", "score"),
)
