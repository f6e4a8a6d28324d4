"""`flywright fake-llm`: a deterministic OpenAI-compatible endpoint for tests and rehearsals.

    flywright fake-llm --port 8000 --fault rate429=0.1 --fault hang=0.01

The same seed and messages always give the same answer, so a flow rehearsed against it can be run
twice and compared. Requests for a list get a numbered list of that length, judges' prompts get a
verdict, coding prompts get code that runs; anything else gets sentences. Faults strike by seed,
message and attempt, so that a retry is a new draw and the order of requests changes nothing.
"""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from flywright.errors import UserError
from flywright.files import digest, seed_from
from flywright.serve import problems
from flywright.serve.bodies import read_object
from flywright.serve.fake_answers import fake_answer, fake_attributes
from flywright.serve.openai_shapes import choice, reply
from flywright.serve.problems import Problem

MODEL = "fake-llm"
FAULTS = ("rate429", "error500", "truncate", "badjson", "hang")
HANG_SECONDS = 3600.0


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


def _strikes(shares: dict[str, float], seed: int) -> Callable[[dict[str, Any]], set[str]]:
    """A function that draws, for each attempt at a request, which faults hit it."""
    attempts: Counter[str] = Counter()

    def strike(tree: dict[str, Any]) -> set[str]:
        key = digest(tree)
        attempts[key] += 1
        chances = {name: seed_from(seed, name, key, attempts[key]) for name in shares}
        return {n for n, chance in chances.items() if random.Random(chance).random() < shares[n]}

    return strike


async def _suffer(struck: set[str]) -> Response | None:
    """Live through the faults that come before an answer; some are the answer."""
    if "hang" in struck:
        await asyncio.sleep(HANG_SECONDS)
    if "rate429" in struck:
        raise Problem(429, "rate limit (a planned fault)", retry_after_seconds=1)
    if "error500" in struck:
        raise Problem(500, "a planned fault")
    if "badjson" in struck:
        return PlainTextResponse('{"choices": [{"message": {"cont', media_type="application/json")
    return None


def _reply(tree: dict[str, Any], chat: bool, struck: set[str], seed: int) -> dict[str, Any]:
    if chat:
        messages = tree["messages"]
        asked, context = str(messages[-1].get("content")), digest(messages[:-1])
    else:
        asked, context = str(tree["prompt"]), ""
    text, finish, logprobs = "", "stop", None
    if chat and messages[-1].get("role") == "assistant":
        rows = fake_attributes(messages, seed).items()
        logprobs = {"content": [{"token": k, "logprob": v} for k, v in rows]}
    else:
        # at temperature 0 the seed of the request changes nothing, as with a real model
        drawn = tree.get("seed", 0) if tree.get("temperature") else 0
        text = fake_answer(asked, seed_from(seed, drawn), context)
        words = re.findall(r"\s*\S+", text)
        limit = tree.get("max_completion_tokens") or tree.get("max_tokens") or 1024
        limit = min(limit, max(1, len(words) // 2)) if "truncate" in struck else limit
        if len(words) > limit:
            text, finish = "".join(words[:limit]), "length"
    said = choice(0, text, chat, finish, logprobs)
    return reply("fake", MODEL, [said], len(asked.split()), len(text.split()))


def create_fake_app(faults: Iterable[str] = (), seed: int = 0) -> FastAPI:
    """The endpoint as an ASGI app. Raises UserError on an unknown fault."""
    strike = _strikes(parse_faults(faults), seed)
    app = FastAPI(title="Flywright fake endpoint", docs_url=None, redoc_url=None)
    problems.install(app)

    async def answer(request: Request, chat: bool) -> Response:
        tree = await read_object(request, 16 << 20)
        needed = "messages" if chat else "prompt"
        if not tree.get(needed):
            raise Problem(400, f"{needed} is required", needed)
        if chat and not all(isinstance(m, dict) for m in tree["messages"]):
            raise Problem(400, "messages: a list of objects", "messages")
        struck = strike(tree)
        return await _suffer(struck) or JSONResponse(_reply(tree, chat, struck, seed))

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await answer(request, chat=True)

    @app.post("/v1/completions")
    async def text(request: Request) -> Response:
        return await answer(request, chat=False)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": MODEL, "object": "model"}]}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "model": MODEL}

    return app


def run_fake(port: int, faults: Iterable[str], seed: int) -> None:
    """Serve the fake endpoint until interrupted."""
    app = create_fake_app(faults, seed)
    print(f"fake endpoint at http://127.0.0.1:{port} (Ctrl-C stops)", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
