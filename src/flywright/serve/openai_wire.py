"""OpenAI's wire: /v1/chat/completions, /v1/completions and /v1/models.

A request that would not fit the context is refused before it costs. Streams are server-sent events;
what fails before the first part has its own status, what fails later is an event with an error.
`echo` with `logprobs` tells how likely a given text is, as evaluation harnesses ask for it.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from flywright.ask import Completion
from flywright.records import Conversation, weighted_reward
from flywright.serve.backend import Ask, Backend, Prompt, all_of, seeds_for, too_late
from flywright.serve.bodies import Json, conversation_of, described, parse_body
from flywright.serve.openai_bodies import (
    UNSUPPORTED,
    AnswerRequest,
    ChatRequest,
    TextRequest,
    known,
    supported,
)
from flywright.serve.openai_shapes import (
    DONE,
    Choice,
    Chunks,
    chat_logprobs,
    choice,
    event,
    reply,
    text_logprobs,
)
from flywright.serve.problems import Problem, error_of, problem_of
from flywright.serve.reward_wire import hosted_reply, score_all, wants_reward

STREAMED: Any = {200: {"content": {"application/json": {}, "text/event-stream": {}}}}
NOTHING = Completion("", "length")  # the answer of no tokens


def router(backend: Backend) -> APIRouter:
    """The routes under /v1 that speak of language models."""
    wire = APIRouter(prefix="/v1")

    @wire.get("/models")
    async def models() -> dict[str, Any]:
        names = (backend.model_name, backend.reward_name)
        return {"object": "list", "data": [_model(name) for name in names if name]}

    @wire.get("/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if not name or name not in (backend.model_name, backend.reward_name):
            raise Problem(
                404, f"model {name[:200]!r} is not served here", "model", "model_not_found"
            )
        return _model(name)

    @wire.post(
        "/chat/completions", openapi_extra=described(ChatRequest, UNSUPPORTED), responses=STREAMED
    )
    async def chat(request: Request) -> Response:
        asked = parse_body(ChatRequest, supported(await backend.read(request)))
        conversation = conversation_of(asked.messages)
        if wants_reward(backend, asked.model, conversation):
            if asked.stream:
                raise Problem(400, "stream: rewards come whole", "stream")
            return Json(await backend.while_there(request, hosted_reply(backend, conversation)))
        backend.check_model(asked.model)
        if not conversation.awaits_answer:
            raise Problem(400, "messages: the last one must be the user's", "messages")
        wanted = asked.max_completion_tokens or asked.max_tokens
        return await answer(backend, request, order_of(backend, asked, [conversation], wanted))

    @wire.post(
        "/completions", openapi_extra=described(TextRequest, UNSUPPORTED), responses=STREAMED
    )
    async def text(request: Request) -> Response:
        asked = parse_body(TextRequest, supported(await backend.read(request)))
        backend.check_model(asked.model)
        for prompt in asked.prompt:
            if isinstance(prompt, tuple):
                backend.reader("prompt")
                known(backend, prompt, "prompt")
        wanted = 16 if asked.max_tokens is None else asked.max_tokens
        return await answer(backend, request, order_of(backend, asked, asked.prompt, wanted))

    return wire


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "flywright"}


@dataclass(frozen=True)
class Order:
    """What is to be answered: `asks` holds `drawn` for each prompt, of which `given` are given."""

    asked: AnswerRequest
    prompts: list[Prompt]
    ids: list[list[int]]
    asks: list[Ask]
    drawn: int
    given: int

    @property
    def chat(self) -> bool:
        """True for messages, false for texts."""
        return isinstance(self.asked, ChatRequest)

    @property
    def echo(self) -> bool:
        """True if prompts are repeated before their answers."""
        return isinstance(self.asked, TextRequest) and bool(self.asked.echo)

    @property
    def read(self) -> int:
        """Tokens of the prompts, each counted once."""
        return sum(map(len, self.ids))


def order_of(
    backend: Backend, asked: AnswerRequest, prompts: list[Prompt], wanted: int | None
) -> Order:
    """Checks what only the server can. Raises Problem where something would not fit or work."""
    asked.check()
    settings = backend.settings
    if asked.top is not None:
        backend.reader("logprobs")
    drawn, given = asked.counts
    ids = [backend.prompt_ids(prompt, 1 if wanted is None else wanted) for prompt in prompts]
    default, context = settings.default_max_tokens, settings.context_tokens
    samplings = [
        asked.sampling(backend, min(default, context - len(one)) if wanted is None else wanted)
        for one in ids
    ]
    seeds = iter(seeds_for(asked.seed, len(prompts) * drawn))
    asks: list[Ask] = [
        (prompt, sampling.with_seed(next(seeds)))
        for prompt, sampling in zip(prompts, samplings, strict=True)
        for _ in range(drawn)
    ]
    order = Order(asked, prompts, ids, asks, drawn, given)
    if asked.top is not None:
        texts = sum(map(len, ids)) * drawn if order.echo else 0
        longest = sum(sampling.max_tokens for _, sampling in asks)
        backend.tellable((texts + longest) * (asked.top + 1), "logprobs")
    backend.metrics.read(order.read)
    return order


async def answer(backend: Backend, request: Request, order: Order) -> Response:
    """The whole answer, or a stream of it."""
    if not order.asked.stream:
        return await backend.while_there(request, whole(backend, order))
    began = time.perf_counter()
    events = _events(backend, order)
    try:
        first = await backend.while_there(request, _next(events))
    except BaseException:
        await events.aclose()
        raise
    backend.metrics.first(time.perf_counter() - began)
    return Streamed(first, events, backend.settings.deadline_seconds)


async def _next(events: AsyncGenerator[bytes, None]) -> bytes:
    return await anext(events)


async def _heads(backend: Backend, order: Order) -> list[Completion | None]:
    """How likely the prompts are, where an echo with log-probabilities was asked for."""
    if not order.echo or order.asked.top is None:
        return [None] * len(order.ids)
    reader, top = backend.reader("echo"), order.asked.top
    with backend.places(len(order.ids)):
        return list(await all_of(reader.read(ids, top) for ids in order.ids))


async def whole(backend: Backend, order: Order) -> Response:
    """The answers to each prompt, in order; the best of them where more were drawn."""
    heads = await _heads(backend, order)
    none = order.echo and order.asked.max_tokens == 0
    done = [NOTHING] * len(order.asks) if none else await backend.complete(order.asks)
    given = [
        await best_of(backend, order, prompt, done[index * order.drawn :][: order.drawn])
        for index, prompt in enumerate(order.prompts)
    ]

    def told() -> Response:
        choices: list[Choice] = []
        for index, answers in enumerate(given):
            echoed = _echoed(backend, order, index) if order.echo else ""
            for one in answers:
                logprobs = _logprobs(backend, order, index, heads[index], one)
                said = echoed + one.text
                choices.append(choice(len(choices), said, order.chat, one.finish, logprobs))
        written = sum(one.completion_tokens or len(one.token_ids) for one in done)
        prefix = "chatcmpl" if order.chat else "cmpl"
        return Json(reply(prefix, backend.model_name, choices, order.read, written))

    # beside the event loop, which a million log-probabilities would hold up
    return told() if order.asked.top is None else await asyncio.to_thread(told)


async def best_of(
    backend: Backend, order: Order, prompt: Prompt, answers: list[Completion]
) -> list[Completion]:
    """The `given` best of a prompt's answers: by reward in a chat where a reward model is served,
    else by the mean log-probability of a token. Of as many as were drawn, all, in their order."""
    if order.drawn == order.given:
        return answers
    if backend.scorer is not None and isinstance(prompt, Conversation):
        rated = [prompt.answered(one.text) for one in answers]
        found, _ = await score_all(backend, rated)
        values = [weighted_reward(one) for one in found]
    else:
        backend.reader("best_of")
        values = [sum(one.logprobs) / max(1, len(one.logprobs)) for one in answers]
    ranked = sorted(range(len(answers)), key=lambda index: -values[index])
    return [answers[index] for index in ranked[: order.given]]


def _echoed(backend: Backend, order: Order, index: int) -> str:
    prompt = order.prompts[index]
    return prompt if isinstance(prompt, str) else backend.speller.shown(order.ids[index])


def _logprobs(
    backend: Backend,
    order: Order,
    index: int,
    head: Completion | None,
    one: Completion,
    first: int = 0,
) -> dict[str, Any] | None:
    """Log-probabilities of an answer (from character `first` on), or with its prompt's before."""
    top = order.asked.top
    if top is None:
        return None
    if order.chat:
        return chat_logprobs(backend.speller, one, top)
    tokens, values, likely = list(one.token_ids), list(one.logprobs), list(one.top)
    likely = likely or [()] * len(tokens)
    if head is not None:
        tokens, values = [*order.ids[index], *tokens], [None, *head.logprobs, *values]
        likely = [None, *(head.top or [()] * len(head.logprobs)), *likely]
    return text_logprobs(backend.speller, tokens, values, likely, top, first)


async def _events(backend: Backend, order: Order) -> AsyncGenerator[bytes, None]:
    """The answers as events: an answer's first is its opening or its echo."""
    options = cast(Any, order.asked).stream_options
    with_usage = bool(options and options.include_usage)
    chunks = Chunks(order.chat, backend.model_name, with_usage)
    heads = await _heads(backend, order)
    width = [0] * len(order.asks)
    begun: set[int] = set()
    written = 0
    asks = [] if order.echo and order.asked.max_tokens == 0 else order.asks
    if not asks:
        for index in range(len(order.asks)):
            yield _opening(backend, order, chunks, index, heads, "length")
    if order.echo:
        heads_width = [sum(map(backend.speller.width, ids)) for ids in order.ids]
        width = [one for one in heads_width for _ in range(order.drawn)]
    async with aclosing(backend.stream(asks)) as parts:
        async for index, one in parts:
            if index not in begun:
                begun.add(index)
                if order.chat or order.echo:
                    yield _opening(backend, order, chunks, index, heads, "")
            logprobs = _logprobs(backend, order, index, None, one, width[index])
            width[index] += sum(map(backend.speller.width, one.token_ids))
            written += one.completion_tokens or len(one.token_ids)
            yield chunks.part(index, one.text, logprobs, one.finish)
    if with_usage:
        yield chunks.usage(order.read, written)
    yield DONE


def _opening(
    backend: Backend, order: Order, chunks: Chunks, index: int, heads: list[Any], finish: str
) -> bytes:
    if order.chat:
        return chunks.first(index)
    prompt = index // order.drawn
    logprobs = _logprobs(backend, order, prompt, heads[prompt], Completion(""))
    return chunks.part(index, _echoed(backend, order, prompt), logprobs, finish)


class Streamed(StreamingResponse):
    """Events to a client; when it goes, or its time is over, the work behind them ends."""

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None], seconds: float):
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        self._events, self._seconds = cast(Any, events), seconds
        super().__init__(self._told(first), headers=headers, media_type="text/event-stream")

    async def _told(self, first: bytes) -> AsyncGenerator[bytes, None]:
        last = asyncio.get_running_loop().time() + self._seconds
        problem: Problem | None = None
        yield first
        while problem is None:
            step: Awaitable[bytes] = anext(self._events)
            try:
                async with asyncio.timeout_at(last):
                    told = await step
            except StopAsyncIteration:
                return
            except TimeoutError:
                problem = too_late(self._seconds)
            except Exception as error:
                problem = problem_of(error)
            else:
                yield told
        yield event(error_of(problem))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them. A client that does not read is left a little after its time."""
        try:
            async with asyncio.timeout(self._seconds + 10):
                await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
