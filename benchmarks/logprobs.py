"""Memory and time of the log-probability op beside the naive one: `python benchmarks/logprobs.py`.

Vocabulary 256,000, 4,096 tokens, hidden 3,072, bf16, forward and backward. Extra peak = the most
that the process held, less what it holds with weights, inputs and the gradients of both. Each op
runs in a process of its own. Writes benchmarks/results/logprobs.json.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from recording import row, write_result
from torch.nn import functional as F

from flywright.model import logprobs

TOKENS, HIDDEN, VOCABULARY = 4096, 3072, 256_000


def torch_own(hidden_ND, weight_VD, targets_N):
    """torch's cross-entropy on bf16 logits, what most trainers call."""
    return -F.cross_entropy(hidden_ND @ weight_VD.T, targets_N, reduction="none")


OPS = {
    "ours": logprobs.token_logprobs,
    "naive": logprobs.token_logprobs_naive,
    "cross_entropy": torch_own,
}


def held_bytes() -> int:
    """Most bytes that the process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str, vocabulary: int) -> dict[str, float]:
    """Extra peak in GiB and seconds of one forward and backward, in this process."""
    torch.manual_seed(0)
    hidden = torch.randn(TOKENS, HIDDEN, dtype=torch.bfloat16).requires_grad_()
    weight = torch.empty(vocabulary, HIDDEN, dtype=torch.bfloat16).normal_(std=0.02)
    weight.requires_grad_()
    targets = torch.randint(0, vocabulary, (TOKENS,))
    gradients = [torch.ones_like(weight), torch.ones_like(hidden)]  # room for what comes anyway
    base = held_bytes()
    del gradients
    start = time.perf_counter()
    OPS[name](hidden, weight, targets).float().mean().backward()
    return {
        "seconds": time.perf_counter() - start,
        "extra_gib": max(0, held_bytes() - base) / 2**30,
        "check": float(hidden.grad.float().norm()),
    }


def apart(name: str, vocabulary: int) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--op", name, "--vocabulary", str(vocabulary)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--op", choices=OPS)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    chosen = parser.parse_args()
    if chosen.op:
        print(json.dumps(measure(chosen.op, chosen.vocabulary)))
        return
    found = {name: apart(name, chosen.vocabulary) for name in OPS}
    half = apart("ours", chosen.vocabulary // 2)
    rows = []
    for peer in ("naive", "cross_entropy"):
        for what, unit in (("extra_gib", "GiB"), ("seconds", "s")):
            ours, theirs = found["ours"][what], found[peer][what]
            rows.append(row(f"{what} of forward and backward", ours, theirs, peer, unit, True))
    ours, twin = found["ours"]["extra_gib"], half["extra_gib"]
    rows.append(row("extra_gib, half the vocabulary", ours, twin, "ours", "GiB", True))
    write_result("logprobs", "python benchmarks/logprobs.py", rows, checks=found)


if __name__ == "__main__":
    main()
