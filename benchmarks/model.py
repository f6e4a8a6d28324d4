"""Forward and training speed beside transformers on the same folder, and the machine's limit.

    python benchmarks/model.py [--sizes 6M,60M,300M] [--repeats 5] [--device cpu]

Same weights, same batch, same loss (mean cross-entropy of the next token). `forward` is the loss
without gradients, `train` with them; no optimizer. Theirs: eager and torch.compile; in pure bf16,
in bf16 autocast over fp32 weights, in fp32; the best of what a precision allows is the peer. The
limit is the time that the model's matrix products alone take at the rate measured for each of
their shapes on this machine. Repeats interleave; medians count.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from recording import RESULTS, row, write_result
from serve_models import nemotron

from flywright.model import Decoder, load, save
from flywright.model.logprobs import token_logprobs
from flywright.spec import ModelSpec

SIZES = {  # hidden, layers, heads, kv heads, ffn, vocabulary, head dimension; rows x tokens
    "6M": ((256, 6, 8, 2, 1024, 4096, 32), (4, 512)),
    "60M": ((640, 10, 10, 2, 2560, 16384, 64), (4, 512)),
    "300M": ((1280, 16, 20, 4, 5120, 16384, 64), (2, 512)),
    "1B": ((2048, 20, 16, 4, 8192, 32768, 128), (8, 2048)),
}
Run = Callable[[], None]


def our_loss(model: Decoder, ids_BT: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy through the one log-probability op."""
    hidden_ND = model.hidden(ids_BT)[:, :-1].flatten(0, 1)
    return -token_logprobs(hidden_ND, model.lm_head.weight, ids_BT[:, 1:].flatten()).mean()


def passes(loss: Callable[[], torch.Tensor], model: torch.nn.Module) -> dict[str, Run]:
    """What is timed: the loss without and with gradients."""

    def forward() -> None:
        with torch.no_grad():
            loss().item()

    def train() -> None:
        value = loss()
        value.backward()
        value.item()
        model.zero_grad(set_to_none=True)  # gradients of five ways would not fit side by side

    return {"forward": forward, "train": train}


def contestants(folder: Path, ids_BT: torch.Tensor, precision: str) -> dict[str, dict[str, Run]]:
    """Name -> the passes of each way to run the folder in this precision."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    device = ids_BT.device
    ours = load(folder, dtype).to(device)
    found = {"ours": passes(lambda: our_loss(ours, ids_BT), ours)}

    def add(name: str, stored: torch.dtype, autocast: bool, compiled: bool) -> None:
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=stored).to(device)
        called = torch.compile(theirs) if compiled else theirs

        def loss() -> torch.Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                return called(input_ids=ids_BT, labels=ids_BT, use_cache=False).loss

        found[name] = passes(loss, theirs)

    add("eager", dtype, False, False)
    add("compiled", dtype, False, True)
    if precision == "bf16":
        add("eager autocast", torch.float32, True, False)
        add("compiled autocast", torch.float32, True, True)
    return found


def seconds(run: Run, device: str) -> float:
    """One timed call."""
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def gemm_seconds(spec: ModelSpec, tokens: int, dtype: torch.dtype, device: str) -> float:
    """Time of one forward's matrix products alone, attention's not counted."""
    query, key = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    hidden, ffn = spec.hidden_size, spec.ffn_size
    layer = [(hidden, query), (hidden, key), (hidden, key), (query, hidden)]
    layer += [(hidden, ffn), (ffn, hidden)]
    total = 0.0
    for (inputs, outputs), times in [
        *((s, spec.layers) for s in layer),
        ((hidden, spec.vocab_size), 1),
    ]:
        x = torch.randn(tokens, inputs, device=device).to(dtype)
        weight = torch.randn(outputs, inputs, device=device).to(dtype)
        runs = [
            seconds(lambda x=x, w=weight: torch.nn.functional.linear(x, w), device)
            for _ in range(7)
        ]
        total += times * statistics.median(runs[2:])
    return total


def measure(size: str, precision: str, repeats: int, device: str) -> list[dict]:
    """Rows of one size and precision."""
    shape, (rows, length) = SIZES[size]
    spec = nemotron(*shape, context=2048)
    ids_BT = torch.randint(
        spec.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0)
    )
    ids_BT = ids_BT.to(device)
    with tempfile.TemporaryDirectory() as folder:
        save(Decoder(spec, seed=0), Path(folder))
        ways = contestants(Path(folder), ids_BT, precision)
    table = []
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for what, products in (("forward", 1), ("train", 3)):
        times: dict[str, list[float]] = {name: [] for name in ways}
        for repeat in range(repeats + 2):  # two to warm up and compile
            for name, runs in ways.items():
                took = seconds(runs[what], device)
                if repeat >= 2:
                    times[name].append(took)
        best = {name: statistics.median(found) for name, found in times.items()}
        peer_name = min((name for name in best if name != "ours"), key=best.__getitem__)
        limit = products * gemm_seconds(spec, rows * length, dtype, device)
        tokens = rows * length
        rates = {name: round(tokens / found) for name, found in best.items()}
        theirs = f"transformers {transformers.__version__}, {peer_name}"
        said = row(
            f"{size} {precision} {what}", rates["ours"], rates[peer_name], theirs, "tokens/s"
        )
        share = round(limit / best["ours"], 2)
        print(f"{said['what']}: {share:.0%} of the products' limit", flush=True)
        table.append(said | {"share_of_gemm_limit": share, "all": rates})
    return table


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="6M,60M,300M")
    parser.add_argument("--precisions", default="bf16,fp32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS / "model.json")
    args = parser.parse_args()
    torch._dynamo.config.recompile_limit = 64  # with and without gradients, autocast, each size
    rows = []
    for size in args.sizes.split(","):
        for precision in args.precisions.split(","):
            rows += measure(size, precision, args.repeats, args.device)
            # after each: a run that is stopped keeps what it measured
            command = f"python benchmarks/model.py --sizes {args.sizes} --repeats {args.repeats}"
            write_result(args.out, command, rows, device=args.device)


if __name__ == "__main__":
    main()
