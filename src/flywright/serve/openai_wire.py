"""OpenAI's wire: /v1/chat/completions, /v1/completions, /v1/models, and /v1/logprobs of our own.

Streaming sends the finished text in pieces, because a Completer answers whole. What is not
supported (tools, response_format, penalties, echo ...) is refused with a 400 that names the field,
never silently dropped; so is a request that would not fit the context.
"""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse

from flywright.ask import Completion
from flywright.records import Conversation
from flywright.serve.backend import Backend, seeds_for
from flywright.serve.bodies import conversation_of, parse_body, read_object
from flywright.serve.openai_body import (
    AnswerRequest,
    ChatRequest,
    LogprobsRequest,
    StreamOptions,
    TextRequest,
    supported,
)
from flywright.serve.problems import Problem
from flywright.serve.reward_wire import hosted_reply, wants_reward


def check_model(asked: str | None, served: str) -> None:
    """Raises Problem(404) if another model than the served one is asked for."""
    if asked and asked != served:
        raise Problem(404, f"model {asked[:200]!r} is not served here", "model", "model_not_found")


def room_for(backend: Backend, prompt: Conversation | str, wanted: int | None, default: int) -> int:
    """How many tokens the answer may have. Raises Problem(400) if they would not fit."""
    context = backend.settings.context_tokens
    used = len(backend.prompt_ids(prompt))
    room = context - used
    if room < (wanted or 1):
        message = f"the prompt has {used} tokens and the answer may take {wanted or 1}; "
        message += f"the context holds {context}"
        raise Problem(400, message, None, "context_length_exceeded")
    return wanted or min(default, room)


def usage_of(backend: Backend, prompts: list[Conversation | str], done: list[Completion]) -> dict:
    """Token counts; each prompt counts once, however many answers it gets."""
    per_prompt = len(done) // len(prompts)
    asked = sum(
        done[index * per_prompt].prompt_tokens or len(backend.prompt_ids(prompt))
        for index, prompt in enumerate(prompts)
    )
    written = sum(c.completion_tokens or len(c.token_ids) for c in done)
    return {
        "prompt_tokens": asked,
        "completion_tokens": written,
        "total_tokens": asked + written,
    }


def token_logprobs(backend: Backend, completion: Completion) -> list[tuple[str, float]]:
    """(piece, log-probability) of each generated token. Raises Problem if they are not reported."""
    reported = completion.token_ids and len(completion.logprobs) == len(completion.token_ids)
    if backend.tokenizer is None or not reported:
        raise Problem(400, "this model reports no log-probabilities", "logprobs")
    pieces = [backend.tokenizer.piece(token) for token in completion.token_ids]
    return list(zip(pieces, completion.logprobs, strict=True))


def _head(kind: str, prefix: str, model: str) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def router(backend: Backend) -> APIRouter:
    """The routes under /v1 that speak of language models."""
    wire = APIRouter(prefix="/v1")
    settings = backend.settings

    async def read(request: Request) -> dict[str, Any]:
        return await read_object(request, settings.max_body_bytes, settings.body_seconds)

    @wire.get("/models")
    async def models() -> dict[str, Any]:
        names = [name for name in (backend.model_name, backend.reward_name) if name]
        rows = [{"id": n, "object": "model", "created": 0, "owned_by": "flywright"} for n in names]
        return {"object": "list", "data": rows}

    @wire.post("/chat/completions", response_model=None)
    async def chat(request: Request) -> JSONResponse | StreamingResponse:
        asked = parse_body(ChatRequest, supported(await read(request)))
        conversation = conversation_of(asked.messages)
        if wants_reward(backend, asked.model, conversation):
            check_model(asked.model, backend.reward_name)
            return JSONResponse(await hosted_reply(backend, conversation))
        check_model(asked.model, backend.model_name)
        if not conversation.awaits_answer:
            raise Problem(400, "messages: the last one must be the user's", "messages")
        wanted = asked.max_completion_tokens or asked.max_tokens
        room = room_for(backend, conversation, wanted, settings.default_max_tokens)
        done = await _answers(backend, [conversation], [room], asked)
        kind = "chat.completion.chunk" if asked.stream else "chat.completion"
        head = _head(kind, "chatcmpl", backend.model_name)
        usage = usage_of(backend, [conversation], done)
        if asked.stream:
            return _stream(chat_chunks(done), head, usage, asked.stream_options)
        choices = [_chat_choice(backend, i, c, bool(asked.logprobs)) for i, c in enumerate(done)]
        return JSONResponse({**head, "choices": choices, "usage": usage})

    @wire.post("/completions", response_model=None)
    async def text(request: Request) -> JSONResponse | StreamingResponse:
        asked = parse_body(TextRequest, supported(await read(request)))
        check_model(asked.model, backend.model_name)
        prompts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
        if not 1 <= len(prompts) <= 128:
            raise Problem(400, "prompt: one string, or a list of 1 to 128", "prompt")
        rooms = [room_for(backend, prompt, asked.max_tokens or 16, 16) for prompt in prompts]
        done = await _answers(backend, list(prompts), rooms, asked)
        head = _head("text_completion", "cmpl", backend.model_name)
        usage = usage_of(backend, list(prompts), done)
        if asked.stream:
            return _stream(text_chunks(done), head, usage, asked.stream_options)
        wanted = asked.logprobs is not None
        choices = [_text_choice(backend, i, c, wanted) for i, c in enumerate(done)]
        return JSONResponse({**head, "choices": choices, "usage": usage})

    @wire.post("/logprobs")
    async def logprobs(request: Request) -> dict[str, Any]:
        asked = parse_body(LogprobsRequest, await read(request))
        check_model(asked.model, backend.model_name)
        if backend.completer is None:
            raise Problem(404, "no language model is served here, only a reward model")
        for continuation in asked.continuations:
            room_for(backend, asked.context + continuation, None, 1)
        ask = backend.completer.logprobs(asked.context, asked.continuations)
        [sums] = await backend.bounded([ask])
        return {"model": backend.model_name, "logprobs": sums}

    return wire


async def _answers(
    backend: Backend, prompts: list[Conversation | str], rooms: list[int], asked: AnswerRequest
) -> list[Completion]:
    """`n` answers to each prompt, in order."""
    if asked.stream and getattr(asked, "logprobs", None) not in (None, False):
        raise Problem(400, "logprobs cannot be streamed by this server", "logprobs")
    count = asked.n or 1
    seeds = seeds_for(asked.seed, len(prompts) * count)
    asks = [
        (prompt, asked.sampling(room, seeds[index * count + sample]))
        for index, (prompt, room) in enumerate(zip(prompts, rooms, strict=True))
        for sample in range(count)
    ]
    return await backend.complete(asks)


def _chat_choice(
    backend: Backend, index: int, completion: Completion, logprobs: bool
) -> dict[str, Any]:
    content = None
    if logprobs:
        content = [
            {"token": piece, "logprob": value, "bytes": None, "top_logprobs": []}
            for piece, value in token_logprobs(backend, completion)
        ]
    return {
        "index": index,
        "message": {"role": "assistant", "content": completion.text},
        "logprobs": {"content": content} if logprobs else None,
        "finish_reason": completion.finish,
    }


def _text_choice(
    backend: Backend, index: int, completion: Completion, logprobs: bool
) -> dict[str, Any]:
    report = None
    if logprobs:
        rows = token_logprobs(backend, completion)
        report = {
            "tokens": [piece for piece, _ in rows],
            "token_logprobs": [value for _, value in rows],
            "top_logprobs": None,
        }
    return {
        "index": index,
        "text": completion.text,
        "logprobs": report,
        "finish_reason": completion.finish,
    }


def pieces_of(text: str) -> list[str]:
    """A text in word-sized pieces that join to it again."""
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + words[-1:]


def chat_chunks(done: list[Completion]) -> Iterator[dict[str, Any]]:
    """Chunks of each answer in turn: the role, the pieces, the reason it ended."""
    for index, completion in enumerate(done):
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": piece} for piece in pieces_of(completion.text) if piece]
        for delta in deltas:
            yield {"index": index, "delta": delta, "finish_reason": None}
        yield {"index": index, "delta": {}, "finish_reason": completion.finish}


def text_chunks(done: list[Completion]) -> Iterator[dict[str, Any]]:
    """Chunks of each text in turn, the last with the reason it ended."""
    for index, completion in enumerate(done):
        for piece in pieces_of(completion.text):
            yield {"index": index, "text": piece, "logprobs": None, "finish_reason": None}
        reason = completion.finish
        yield {"index": index, "text": "", "logprobs": None, "finish_reason": reason}


def _stream(
    choices: Iterator[dict[str, Any]],
    head: dict[str, Any],
    usage: dict[str, Any],
    options: StreamOptions | None,
) -> StreamingResponse:
    """Server-sent events, one choice an event, closed by [DONE]."""

    def events() -> Iterator[bytes]:
        for choice in choices:
            yield b"data: " + orjson.dumps({**head, "choices": [choice]}) + b"\n\n"
        if options is not None and options.include_usage:
            yield b"data: " + orjson.dumps({**head, "choices": [], "usage": usage}) + b"\n\n"
        yield b"data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")
