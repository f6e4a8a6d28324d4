"""Rewards over HTTP: POST /v1/rewards, and the hosted format on /v1/chat/completions (SPEC 11.5).

    curl localhost:1424/v1/rewards -H 'Content-Type: application/json' -d '{"messages":
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}'

answers {"model", "attributes": {five by name}, "reward": the card's weighted sum}.
"""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from flywright.records import ATTRIBUTES, Conversation, weighted_reward
from flywright.serve.backend import Backend, choice, reply
from flywright.serve.bodies import Body, conversation_of, parse_body
from flywright.serve.problems import Problem
from flywright.tokenizer import chat


class RewardRequest(Body):
    """Body of /v1/rewards; the last message is the answer to rate."""

    model: str | None = None
    messages: list[dict[str, Any]] = Field(min_length=2)


def check_model(asked: str | None, served: str) -> None:
    """Raises Problem(404) if another model than the served one is asked for."""
    if asked and asked != served:
        raise Problem(404, f"model {asked[:200]!r} is not served here", "model", "model_not_found")


def wants_reward(backend: Backend, model: str | None, conversation: Conversation) -> bool:
    """True if a chat request is for the reward model: by name, or by an answer at its end."""
    if backend.scorer is None:
        return False
    by_name = model == backend.reward_name and model != backend.model_name
    return by_name or (not model and not conversation.awaits_answer)


async def attributes_of(
    backend: Backend, conversation: Conversation
) -> tuple[dict[str, float], int]:
    """The last answer's five attributes, and the tokens read. Raises Problem 404, 400 or 429,
    and TooLong for what the reward model cannot hold."""
    if backend.scorer is None:
        raise Problem(404, "no reward model is served here")
    if conversation.awaits_answer:
        message = "messages: the last one must be the assistant's, it is rated"
        raise Problem(400, message, "messages")
    with backend.places(1):
        attributes = await backend.scorer.score(conversation)
    used = len(chat.reward_ids(backend.tokenizer, conversation))
    return {name: float(attributes[name]) for name in ATTRIBUTES}, used


async def hosted_reply(backend: Backend, conversation: Conversation) -> dict[str, Any]:
    """The attributes as a chat completion: choices[0].logprobs.content, token = name."""
    attributes, used = await attributes_of(backend, conversation)
    said = ",".join(f"{name}:{value}" for name, value in attributes.items())
    content = [
        {"token": name, "logprob": value, "bytes": None, "top_logprobs": []}
        for name, value in attributes.items()
    ]
    rated = choice(0, said, True, "stop", {"content": content})
    return reply("reward", backend.reward_name, [rated], used, 0)


def router(backend: Backend) -> APIRouter:
    """POST /v1/rewards."""
    wire = APIRouter(prefix="/v1")

    @wire.post("/rewards")
    async def rewards(request: Request) -> dict[str, Any]:
        asked = parse_body(RewardRequest, await backend.read(request))
        check_model(asked.model, backend.reward_name)
        attributes, _ = await attributes_of(backend, conversation_of(asked.messages))
        reward = weighted_reward(attributes)
        return {"model": backend.reward_name, "attributes": attributes, "reward": reward}

    return wire
