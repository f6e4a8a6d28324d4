"""Rewards over HTTP: POST /v1/rewards, and the hosted format on /v1/chat/completions (SPEC 11.5).

    curl localhost:1424/v1/rewards -H 'Content-Type: application/json' -d '{"messages":
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}'

answers {"model", "attributes": {five by name}, "reward": the card's weighted sum}.
"""

import time
import uuid
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from flywright.records import ATTRIBUTES, Conversation, weighted_reward
from flywright.serve.backend import Backend
from flywright.serve.bodies import Body, conversation_of, parse_body, read_object
from flywright.serve.problems import Problem
from flywright.tokenizer import chat


class RewardRequest(Body):
    """Body of /v1/rewards; the last message is the answer to rate."""

    model: str | None = None
    messages: list[dict[str, Any]] = Field(min_length=2)


def wants_reward(backend: Backend, model: str | None, conversation: Conversation) -> bool:
    """True if a chat request is for the reward model: by name, or by an answer at its end."""
    if backend.scorer is None:
        return False
    by_name = bool(model) and model == backend.reward_name and model != backend.model_name
    return backend.completer is None or by_name or (not model and not conversation.awaits_answer)


async def attributes_of(backend: Backend, conversation: Conversation) -> dict[str, float]:
    """The five attributes of the last answer. Raises Problem 404, 400, 429 or 504."""
    scorer = backend.scorer
    if scorer is None:
        raise Problem(404, "no reward model is served here")
    if conversation.awaits_answer:
        raise Problem(
            400, "messages: the last one must be the assistant's, it is rated", "messages"
        )
    if backend.tokenizer is not None:
        used = len(chat.reward_ids(backend.tokenizer, conversation))
        context = backend.settings.context_tokens
        if used > context:
            message = f"the conversation has {used} tokens; the context holds {context}"
            raise Problem(400, message, "messages", "context_length_exceeded")
    [attributes] = await backend.bounded([scorer.score(conversation)])
    return {name: float(attributes[name]) for name in ATTRIBUTES}


async def hosted_reply(backend: Backend, conversation: Conversation) -> dict[str, Any]:
    """The attributes as a chat completion: choices[0].logprobs.content, token = name."""
    attributes = await attributes_of(backend, conversation)
    content = [
        {"token": name, "logprob": value, "bytes": None, "top_logprobs": []}
        for name, value in attributes.items()
    ]
    said = ",".join(f"{name}:{value}" for name, value in attributes.items())
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": said},
        "logprobs": {"content": content},
        "finish_reason": "stop",
    }
    tokenizer = backend.tokenizer
    used = len(chat.reward_ids(tokenizer, conversation)) if tokenizer is not None else 0
    return {
        "id": f"reward-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": backend.reward_name,
        "choices": [choice],
        "usage": {"prompt_tokens": used, "completion_tokens": 0, "total_tokens": used},
    }


def router(backend: Backend) -> APIRouter:
    """POST /v1/rewards."""
    wire = APIRouter(prefix="/v1")
    settings = backend.settings

    @wire.post("/rewards")
    async def rewards(request: Request) -> dict[str, Any]:
        tree = await read_object(request, settings.max_body_bytes, settings.body_seconds)
        asked = parse_body(RewardRequest, tree)
        if asked.model and asked.model != backend.reward_name:
            raise Problem(404, f"model {asked.model[:200]!r} is not served here", "model")
        attributes = await attributes_of(backend, conversation_of(asked.messages))
        return {
            "model": backend.reward_name,
            "attributes": attributes,
            "reward": weighted_reward(attributes),
        }

    return wire
