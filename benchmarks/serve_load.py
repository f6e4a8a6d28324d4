"""Many mixed requests from a second process against a real `flywright serve`: errors, memory, time.

    python benchmarks/serve_load.py --requests 10000 --at-once 32

A tiny policy and a reward model are served from folders made here. Requests are drawn by a seed
from every wire: chats, texts, streams (some left half-way), NeMo's, rewards, likelihoods and bad
ones. Every good answer is compared with the one that the same request got alone, before. Prints
errors, memory of the server before and after, and latencies; a run with a difference ends with 1.
"""

import argparse
import asyncio
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx2
from recording import row, write_result

from flywright.model import Decoder, RewardModel, save
from flywright.spec import ModelSpec
from flywright.tokenizer import train_tokenizer

LINE = "the quick brown fox jumps over a lazy dog and twelve more foxes follow it home"
WORDS = LINE.split()
KINDS = ("chat", "text", "drawn", "stream", "leave", "nemo", "reward", "likelihood", "bad")
SPEC = ModelSpec(
    vocab_size=400, hidden_size=64, layers=2, heads=4, kv_heads=2, head_dim=16,
    ffn_size=128, context_length=256, init_std=0.2,
)  # fmt: skip


def make_folders(path: Path) -> None:
    """A policy and a reward model with random weights."""
    draw = random.Random(0)
    lines = [" ".join(draw.choices(WORDS, k=12)) + ".\n" for _ in range(400)]
    tokenizer = train_tokenizer(lines, SPEC.vocab_size)
    decoder = Decoder(SPEC, seed=0)
    for name, model in (("policy", decoder), ("reward", RewardModel.from_decoder(decoder, seed=0))):
        save(model, path / name)
        tokenizer.save(path / name)


def draw_request(draw: random.Random) -> tuple[str, str, str, dict[str, Any]]:
    """Kind, method, path and body."""
    kind = draw.choice(KINDS)
    text = " ".join(draw.choices(WORDS, k=draw.randint(1, 30)))
    few = {"max_tokens": draw.randint(1, 24), "temperature": 0}
    chat = {"messages": [{"role": "user", "content": text}], **few}
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "chat": ("/v1/chat/completions", chat),
        "text": ("/v1/completions", {"prompt": text, **few, "stop": ["fox"]}),
        "drawn": ("/v1/completions", {"prompt": text, **few, "temperature": 1, "seed": 7, "n": 2}),
        "stream": ("/v1/chat/completions", {**chat, "stream": True}),
        "leave": ("/v1/chat/completions", {**chat, "stream": True, "max_tokens": 64}),
        "nemo": ("/generate", {"sentences": [text, "a"], "tokens_to_generate": 8, "greedy": True}),
        "reward": ("/v1/rewards", {"messages": chat["messages"], "answers": [text, "a fox"]}),
        "likelihood": ("/v1/completions", {"prompt": text, "max_tokens": 1, "temperature": 0,
                                           "echo": True, "logprobs": 1}),
        "bad": ("/v1/completions", {"prompt": text, "max_tokens": draw.choice([-1, True, 10**9])}),
    }  # fmt: skip
    path, body = bodies[kind]
    return kind, "PUT" if path == "/generate" else "POST", path, body


async def ask(client: httpx2.AsyncClient, request: tuple[str, str, str, dict[str, Any]]) -> Any:
    """Status and what was answered, without what names the answer."""
    kind, method, path, body = request
    if kind == "leave":
        async with client.stream(method, path, json=body) as response:
            async for _ in response.aiter_bytes():
                break
        return response.status_code, None
    response = await client.request(method, path, json=body)
    if response.status_code != 200 or kind == "bad":
        return response.status_code, None
    if kind == "stream":
        said = re.findall(r'"content":"((?:[^"\\]|\\.)*)"', response.text)
        return 200, ("".join(said), response.text.rstrip().endswith("[DONE]"))
    value = response.json()
    return 200, value.get("choices") or value.get("sentences") or value.get("data")


def resident_mib(pid: int) -> float:
    """Memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) / 1024 if found else 0.0


def close(one: Any, other: Any) -> bool:
    """Equal, numbers within rounding."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 2e-4 * max(1.0, abs(one))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(close, one, other))
    return one == other


async def load(base: str, pid: int, args: argparse.Namespace) -> dict[str, Any]:
    """Ask everything: a part of it alone first, then all of it at once."""
    draw = random.Random(args.seed)
    kept = [draw_request(draw) for _ in range(args.distinct)]
    limits = httpx2.Limits(max_connections=args.at_once, max_keepalive_connections=args.at_once)
    told: dict[str, Any] = {"statuses": Counter(), "wrong": [], "seconds": {k: [] for k in KINDS}}
    async with httpx2.AsyncClient(base_url=base, timeout=600, limits=limits) as client:
        alone = [await ask(client, one) for one in kept]
        await asyncio.gather(*(ask(client, draw.choice(kept)) for _ in range(args.requests // 10)))
        told["before_mib"] = resident_mib(pid)
        order = iter([draw.randrange(len(kept)) for _ in range(args.requests)])

        async def worker() -> None:
            for index in order:
                began = time.perf_counter()
                found = await ask(client, kept[index])
                told["seconds"][kept[index][0]].append(time.perf_counter() - began)
                told["statuses"][found[0]] += 1
                if not close(found, alone[index]):
                    told["wrong"].append((kept[index], alone[index], found))

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(args.at_once)))
        told["wall"] = time.perf_counter() - began
        told["after_mib"] = resident_mib(pid)
        told["metrics"] = (await client.get("/metrics")).text
    return told


def summary(told: dict[str, Any], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the result: each latency beside the kind's own median, memory beside that before."""
    rows = [
        row("memory after the load", told["after_mib"], told["before_mib"], "before", "MiB", True)
    ]
    for kind, seconds in told["seconds"].items():
        cuts = quantiles(seconds, n=100)
        rows.append(row(f"{kind}: p99", 1e3 * cuts[98], 1e3 * cuts[49], "p50", "ms", True))
    print(f"{args.requests} requests, {args.at_once} at once: {told['wall']:.1f} s, "
          f"{args.requests / told['wall']:.1f} a second; statuses {dict(told['statuses'])}; "
          f"{len(told['wrong'])} answers differ from those given alone")  # fmt: skip
    return rows


def main() -> None:
    """Make, serve, load, tell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--distinct", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="serve_load", help="name of the result, or a .json path")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_folders(Path(folder))
        served = [f"{folder}/policy", "--reward", f"{folder}/reward", "--port", "0"]
        server = subprocess.Popen(
            [sys.executable, "-m", "flywright.cli", "serve", *served, "--cache-gib", "0.25"],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "FLYWRIGHT_API_KEYS": ""},
        )  # fmt: skip
        try:
            assert server.stdout
            base = server.stdout.readline().split(" at ")[1].split()[0]
            told = asyncio.run(load(base, server.pid, args))
        finally:
            server.terminate()
            server.wait()
    rows = summary(told, args)
    out = Path(args.out) if args.out.endswith(".json") else args.out
    counts = {str(status): count for status, count in told["statuses"].items()}
    left = re.findall(r"(?m)^flywright_pending_answers (\S+)", told["metrics"])
    more = {"statuses": counts, "differing": len(told["wrong"]), "pending_at_the_end": left}
    write_result(out, "python " + " ".join(sys.argv), rows, **more)
    for request, alone, found in told["wrong"][:5]:
        print(f"differs: {request}\n  alone  {alone}\n  loaded {found}")
    expected = {200, 400, 422}
    raise SystemExit(bool(told["wrong"] or set(told["statuses"]) - expected or server.returncode))


if __name__ == "__main__":
    main()
