"""Blocked against fused causal attention, forward and backward: `python benchmarks/attention.py`.

Why model/attention.py takes the blocked form for bf16 sequences on a CPU. Writes
benchmarks/results/attention.json; the median of several interleaved runs.
"""

import statistics
import time

import torch
from recording import row, write_result

from flywright.model.attention import blocked_causal, fused_causal

SHAPES = {  # rows, query heads, key-value heads, tokens, head dimension
    "128 tokens, 12 rows": (12, 2, 1, 128, 64),
    "256 tokens, 8 rows": (8, 2, 1, 256, 64),
    "256 tokens, 12 rows, 8 heads": (12, 8, 4, 256, 32),
    "64 tokens, 48 rows": (48, 2, 1, 64, 64),
    "512 tokens, 4 rows, 10 heads": (4, 10, 2, 512, 64),
    "1024 tokens, 2 rows, 10 heads": (2, 10, 2, 1024, 64),
    "2048 tokens, 1 row, 10 heads": (1, 10, 2, 2048, 64),
}
REPEATS, INNER = 7, 10


def milliseconds(form, shape: tuple[int, ...]) -> float:
    """Time of one forward and backward in bf16."""
    rows, heads, groups, tokens, size = shape
    sizes = [(rows, n, tokens, size) for n in (heads, groups, groups)]
    q, k, v = (torch.randn(*s).bfloat16().requires_grad_() for s in sizes)
    start = time.perf_counter()
    for _ in range(INNER):
        form(q, k, v).sum().backward()
    return (time.perf_counter() - start) / INNER * 1e3


def main() -> None:
    rows = []
    for name, shape in SHAPES.items():
        times: dict[str, list[float]] = {"blocked": [], "fused": []}
        for _ in range(REPEATS):
            times["blocked"].append(milliseconds(blocked_causal, shape))
            times["fused"].append(milliseconds(fused_causal, shape))
        ours, peer = (statistics.median(times[form]) for form in ("blocked", "fused"))
        rows.append(row(name, ours, peer, "fused", "ms", less_is_better=True))
    write_result("attention", "python benchmarks/attention.py", rows)


if __name__ == "__main__":
    main()
