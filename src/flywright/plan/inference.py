"""The least GPUs that hold a model to answer with: weights, keys and values, and what runs them.

    inference_fit(preset("nemotron-4-340b"), device("H200"))["gpus"]  # 8: one machine

FP8 holds the layers' matrices in one byte, embeddings and norms in two; keys and values are bf16.
GPUs are a part of a machine that tensor parallelism can cut (1, 2, 4, 8), or whole machines.
"""

from typing import Any

from flywright.plan.devices import GIB, MACHINE_GPUS
from flywright.plan.job import Precision
from flywright.plan.memory import FIT, RUNTIME_BYTES
from flywright.spec import DeviceSpec, ModelSpec


def inference_fit(
    spec: ModelSpec,
    device: DeviceSpec,
    precision: Precision = "bf16",
    context: int = 4096,
    requests: int = 1,
) -> dict[str, Any] | None:
    """The fewest GPUs for so many requests of `context` tokens at once; None without FP8 units.

    `cache_tokens`: all that the room left for keys and values would hold.
    """
    if precision == "fp8" and not device.fp8_flops:
        return None
    matrices = spec.layers * (spec.attention_parameters + spec.mlp_parameters)
    weights = 2 * spec.parameters - (matrices if precision == "fp8" else 0)
    token_bytes = spec.kv_bytes_per_token()
    cache, gpus = token_bytes * context * requests, 1
    each = FIT * device.memory_gib * GIB - RUNTIME_BYTES
    while weights + cache > gpus * each:
        gpus = gpus * 2 if gpus < MACHINE_GPUS else gpus + MACHINE_GPUS
    return {
        "device": device.name,
        "precision": precision,
        "gpus": gpus,
        "weights_gib": weights / GIB,
        "cache_gib": cache / GIB,
        "gib_a_gpu": ((weights + cache) / gpus + RUNTIME_BYTES) / GIB,
        "memory_gib": device.memory_gib,
        "cache_tokens": int((gpus * each - weights) // token_bytes),
    }
