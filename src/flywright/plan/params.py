"""Where a model's parameters are: the table of SPEC 1.2 for any spec."""

from typing import Any

from flywright.spec import ModelSpec


def params_table(spec: ModelSpec) -> list[dict[str, Any]]:
    """Rows {part, parameters, share of the total}; non-embedding sums up the rows before it."""
    layers = spec.layers
    norms = layers * 4 * spec.hidden_size + 2 * spec.hidden_size
    parts = {
        "attention": layers * spec.attention_parameters,
        "mlp": layers * spec.mlp_parameters,
        "norms": norms,
        "non-embedding": spec.non_embedding_parameters,
        "embeddings": spec.embedding_parameters,
        "total": spec.parameters,
    }
    return [
        {"part": part, "parameters": count, "share": count / spec.parameters}
        for part, count in parts.items()
    ]
