"""`flywright fake-llm`: a deterministic OpenAI-compatible endpoint for tests and rehearsals.

    flywright fake-llm --port 8000 --latency 0.1:0.3 --fault rate429=0.1 --fault hang=0.01

The same seed, model's name and messages always give the same answer (fake_answers.py), so a flow
rehearsed against it can be run twice and compared. Faults and latencies are drawn by seed, request
and attempt, so that a retry is a new draw and the order of requests changes nothing. GET /counts
tells how many calls were paid for, and how many of them again (POST /counts starts anew); /metrics,
by vLLM's names, how many wait for one of the `slots`. Light enough to measure clients with.
"""

import asyncio
import random
import re
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from flywright.errors import UserError
from flywright.files import digest, seed_from
from flywright.serve import problems
from flywright.serve.bodies import Json, read_object
from flywright.serve.fake_answers import fake_answer, fake_attributes, phrase
from flywright.serve.openai_shapes import choice, reply
from flywright.serve.problems import Problem

MODEL = "fake-llm"
PAID = ("slow", "hang", "drop", "badjson", "truncate", "garble", "refuse", "usage")
FAULTS = ("rate429", "error500", *PAID)
HANG_SECONDS, SLOW_SECONDS = 3600.0, 5.0
WORDS = re.compile(r"\s*\S+|\s+$")
Tree = dict[str, Any]


def parse_faults(specs: Iterable[str]) -> dict[str, float]:
    """`NAME` or `NAME=SHARE` (default 0.1) as shares by name. Raises UserError on a bad one."""
    faults: dict[str, float] = {}
    for spec in specs:
        name, _, share = spec.partition("=")
        try:
            value = float(share or 0.1)
        except ValueError:
            value = -1.0
        if name not in FAULTS or not 0 <= value <= 1:
            known = ", ".join(FAULTS)
            raise UserError(f"--fault {spec}: expected NAME or NAME=SHARE (0 to 1), NAME: {known}")
        faults[name] = value
    return faults


def _latency(spec: str) -> tuple[bool, float, float]:
    """ "0.2", "LEAST:MOST" (uniform) or "~MEDIAN:SIGMA" (log-normal), in seconds."""
    found = re.fullmatch(r"(~?)(\d*\.?\d+)(?::(\d*\.?\d+))?", spec)
    if not found or (found[1] and not found[3]):
        raise UserError(f"--latency {spec}: expected SECONDS, LEAST:MOST or ~MEDIAN:SIGMA")
    return bool(found[1]), float(found[2]), float(found[3] or found[2])


@dataclass(eq=False)
class _Door:
    """Who comes in, waits for a slot, and what befalls them."""

    faults: dict[str, float]
    seed: int
    latency: tuple[bool, float, float]
    slots: int
    attempts: Counter[str] = field(default_factory=Counter)
    paid: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    here: int = 0
    most: int = 0

    def __post_init__(self):
        self._free = asyncio.Semaphore(self.slots or 1 << 30)

    async def passed(self, tree: Tree) -> set[str]:
        """What struck a request that gets an answer. Raises Problem for one that does not."""
        key = digest(tree)
        self.attempts[key] += 1
        draw = random.Random(f"{self.seed} {key} {self.attempts[key]}")
        struck = {name for name in FAULTS if draw.random() < self.faults.get(name, 0.0)}
        self.ends.update(struck or ("ok",))
        if "rate429" in struck:
            raise Problem(429, "rate limit (a planned fault)", retry_after_seconds=1)
        if "error500" in struck:
            raise Problem(500, "a planned fault")
        self.paid[key] += 1
        skewed, first, second = self.latency
        seconds = first * draw.lognormvariate(0, second) if skewed else draw.uniform(first, second)
        seconds += HANG_SECONDS * ("hang" in struck) + SLOW_SECONDS * ("slow" in struck)
        self.here += 1
        self.most = max(self.most, self.here)
        try:
            async with self._free:
                await asyncio.sleep(seconds)
        finally:
            self.here -= 1
        return struck

    def counts(self) -> Tree:
        """Calls paid for: all, the different ones, those paid again; and how requests ended."""
        total, distinct = self.paid.total(), len(self.paid)
        calls = {"total": total, "distinct": distinct, "repeated": total - distinct}
        calls |= {"in_flight": self.here, "most_in_flight": self.most, "ends": self.ends}
        return {**calls, "cpu_seconds": time.process_time()}  # so that one sees who is slow

    def metrics(self) -> str:
        """vLLM's gauges; the cache's has an older name, too."""
        running = min(self.here, self.slots or self.here)
        used = running / self.slots if self.slots else 0.0
        shown = {"num_requests_running": running, "num_requests_waiting": self.here - running}
        shown |= {"kv_cache_usage_perc": used, "gpu_cache_usage_perc": used}
        one = '# TYPE vllm:{0} gauge\nvllm:{0}{{model_name="{1}"}} {2}\n'
        return "".join(one.format(name, MODEL, float(value)) for name, value in shown.items())


def _said(tree: Tree, struck: set[str], seed: int, index: int) -> str:
    """The text of one of `n` choices, by the prompt's shape; or a planned refusal."""
    if "refuse" in struck:
        return phrase(random.Random(seed), "refusal")
    messages = tree.get("messages") or [{"content": tree["prompt"]}]
    # at temperature 0 the seed of the request changes nothing, as with a real model
    drawn = [tree.get("seed"), index] if tree.get("temperature") else 0
    system = str(messages[0].get("content")) if messages[0].get("role") == "system" else ""
    asked = str(messages[-1].get("content"))
    return fake_answer(asked, seed, [messages[:-1], drawn, tree.get("model")], system)


def _choice(tree: Tree, chat: bool, struck: set[str], seed: int, index: int) -> Tree:
    if chat and tree["messages"][-1].get("role") == "assistant":  # to be rated, as hosts do
        rows = fake_attributes(tree["messages"], seed).items()
        content = [{"token": name, "logprob": value} for name, value in rows]
        return choice(index, "", chat, "stop", {"content": content})
    text = _said(tree, struck, seed, index)
    stops = tree.get("stop") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.partition(stop)[0]
    words = WORDS.findall(text)
    asked = tree.get("max_completion_tokens", tree.get("max_tokens"))
    limit = min(1024 if asked is None else asked, len(words) // 2 if "truncate" in struck else 1024)
    finish = "length" if len(words) > limit else "stop"
    words = words[:limit][:: -1 if "garble" in struck else 1]
    words = [*(WORDS.findall(tree["prompt"]) if tree.get("echo") else ()), *words]
    logprobs = None if chat or tree.get("logprobs") is None else _logprobs(words, seed)
    return choice(index, "".join(words), chat, finish, logprobs)


def _logprobs(words: list[str], seed: int) -> Tree:
    draw = random.Random(seed_from(seed, words))
    values = [round(-draw.expovariate(2), 4) for _ in words]
    starts = [0, *accumulate(map(len, words))][: len(words)]
    told = {"tokens": words, "token_logprobs": values, "text_offset": starts}
    return {**told, "top_logprobs": None}


def _answer(tree: Tree, chat: bool, struck: set[str], seed: int) -> Response:
    choices = [_choice(tree, chat, struck, seed, i) for i in range(min(tree.get("n") or 1, 128))]
    read = len(str(tree.get("messages") or tree["prompt"]).split())
    texts = (one["message"]["content"] if chat else one["text"] for one in choices)
    written = sum(len(text.split()) for text in texts)
    read, written = (-1, 10**9) if "usage" in struck else (read, written)
    whole = Json(reply("fake", str(tree.get("model") or MODEL), choices, read, written))
    if "badjson" in struck:
        return Response(whole.body[: len(whole.body) // 2], media_type="application/json")
    if "drop" in struck:
        return StreamingResponse(_cut(bytes(whole.body)), media_type="application/json")
    return whole


async def _cut(body: bytes) -> AsyncIterator[bytes]:
    yield body[:20]
    raise ConnectionAbortedError("a planned fault")  # the server closes the connection


def create_fake_app(
    faults: Iterable[str] = (), seed: int = 0, latency: str = "0", slots: int = 0
) -> Starlette:
    """The endpoint as an ASGI app. Raises UserError on an unknown fault or a bad latency.

    latency: see `_latency`. slots: how many are answered at once, the rest wait; 0 = all at once.
    """
    fresh = partial(_Door, parse_faults(faults), seed, _latency(latency), slots)
    app = Starlette()
    app.state.door = fresh()
    problems.install(app)

    async def answer(request: Request) -> Response:
        tree = await read_object(request, 16 << 20)
        chat = "chat" in request.url.path
        needed = "messages" if chat else "prompt"
        if not tree.get(needed):
            raise Problem(400, f"{needed} is required", needed)
        if tree.get("stream"):
            raise Problem(400, "stream: the fake endpoint answers whole", "stream")
        if chat and not all(isinstance(m, dict) for m in tree["messages"]):
            raise Problem(400, "messages: a list of objects", "messages")
        return _answer(tree, chat, await app.state.door.passed(tree), seed)

    async def counts(request: Request) -> Response:
        told = Json(app.state.door.counts())
        if request.method == "POST":
            app.state.door = fresh()
        return told

    app.add_route("/v1/chat/completions", answer, ["POST"])
    app.add_route("/v1/completions", answer, ["POST"])
    app.add_route("/counts", counts, ["GET", "POST"])
    app.add_route("/metrics", lambda _request: PlainTextResponse(app.state.door.metrics()))
    listed = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
    app.add_route("/v1/models", lambda _request: Json(listed))
    app.add_route("/health", lambda _request: Json({"status": "ok", "model": MODEL}))
    return app


def run_fake(port: int, faults: Iterable[str], seed: int, latency: str, slots: int) -> None:
    """Serve the fake endpoint until interrupted; port 0 takes a free one."""
    app = create_fake_app(faults, seed, latency, slots)
    listening = socket.create_server(("127.0.0.1", port), backlog=2048)
    port = listening.getsockname()[1]
    print(f"fake endpoint at http://127.0.0.1:{port} (Ctrl-C stops)", flush=True)
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run([listening])
