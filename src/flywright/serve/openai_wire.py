"""OpenAI's wire: /v1/chat/completions, /v1/completions and /v1/models.

What is not supported (streams, tools, response_format, penalties, echo ...) is refused with a 400
that names the field, never silently dropped; so is a request that would not fit the context.
"""

from typing import Any

from fastapi import APIRouter, Request

from flywright.ask import Completion
from flywright.records import Conversation
from flywright.serve.backend import Backend, reply_head, seeds_for
from flywright.serve.bodies import conversation_of, parse_body
from flywright.serve.openai_body import AnswerRequest, ChatRequest, TextRequest, supported
from flywright.serve.problems import Problem
from flywright.serve.reward_wire import check_model, hosted_reply, wants_reward


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
    asked = sum(len(backend.prompt_ids(prompt)) for prompt in prompts)
    written = sum(c.completion_tokens or len(c.token_ids) for c in done)
    total = asked + written
    return {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": total}


def router(backend: Backend) -> APIRouter:
    """The routes under /v1 that speak of language models."""
    wire = APIRouter(prefix="/v1")

    @wire.get("/models")
    async def models() -> dict[str, Any]:
        names = [name for name in (backend.model_name, backend.reward_name) if name]
        rows = [{"id": n, "object": "model", "created": 0, "owned_by": "flywright"} for n in names]
        return {"object": "list", "data": rows}

    @wire.post("/chat/completions")
    async def chat(request: Request) -> dict[str, Any]:
        asked = parse_body(ChatRequest, supported(await backend.read(request)))
        conversation = conversation_of(asked.messages)
        if wants_reward(backend, asked.model, conversation):
            return await hosted_reply(backend, conversation)
        check_model(asked.model, backend.model_name)
        if not conversation.awaits_answer:
            raise Problem(400, "messages: the last one must be the user's", "messages")
        wanted = asked.max_completion_tokens or asked.max_tokens
        room = room_for(backend, conversation, wanted, backend.settings.default_max_tokens)
        done = await _answers(backend, [conversation], [room], asked)
        messages = [{"message": {"role": "assistant", "content": c.text}} for c in done]
        return {
            **reply_head("chat.completion", "chatcmpl", backend.model_name),
            "choices": _choices(messages, done),
            "usage": usage_of(backend, [conversation], done),
        }

    @wire.post("/completions")
    async def text(request: Request) -> dict[str, Any]:
        asked = parse_body(TextRequest, supported(await backend.read(request)))
        check_model(asked.model, backend.model_name)
        prompts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
        if not 1 <= len(prompts) <= 128:
            raise Problem(400, "prompt: one string, or a list of 1 to 128", "prompt")
        rooms = [room_for(backend, prompt, asked.max_tokens or 16, 16) for prompt in prompts]
        done = await _answers(backend, list(prompts), rooms, asked)
        return {
            **reply_head("text_completion", "cmpl", backend.model_name),
            "choices": _choices([{"text": c.text} for c in done], done),
            "usage": usage_of(backend, list(prompts), done),
        }

    return wire


async def _answers(
    backend: Backend, prompts: list[Conversation | str], rooms: list[int], asked: AnswerRequest
) -> list[Completion]:
    """`n` answers to each prompt, in order."""
    count = asked.n or 1
    seeds = seeds_for(asked.seed, len(prompts) * count)
    asks = [
        (prompt, asked.sampling(room, seeds[index * count + sample]))
        for index, (prompt, room) in enumerate(zip(prompts, rooms, strict=True))
        for sample in range(count)
    ]
    return await backend.complete(asks)


def _choices(texts: list[dict[str, Any]], done: list[Completion]) -> list[dict[str, Any]]:
    return [
        {"index": index, **text, "logprobs": None, "finish_reason": completion.finish}
        for index, (text, completion) in enumerate(zip(texts, done, strict=True))
    ]
