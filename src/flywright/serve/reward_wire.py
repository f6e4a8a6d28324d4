"""Rewards over HTTP: POST /v1/rewards, /score, and the hosted format in chats (SPEC 11.5).

    curl localhost:1424/v1/rewards -H 'Content-Type: application/json' -d '{"messages":
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}'

answers {"model", "attributes": {five by name}, "reward": the card's weighted sum}. With `answers`,
a list of texts that each answer the messages, it answers {"model", "data": [the same, with their
index]}. `/score` is vLLM's: text_1 are prompts, text_2 answers, the score is the weighted sum.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from flywright.records import ATTRIBUTES, Conversation, weighted_reward
from flywright.serve.backend import Backend, all_of, check_name
from flywright.serve.bodies import Body, Json, Messages, conversation_of, described, parse_body
from flywright.serve.openai_shapes import choice, reply, usage
from flywright.serve.problems import Problem

Texts = str | Annotated[list[str], Field(min_length=1, max_length=128)]


class RewardRequest(Body):
    """Body of /v1/rewards; the last message is the answer to rate, or `answers` are."""

    model: str | None = None
    messages: Messages
    answers: Annotated[list[str], Field(min_length=1, max_length=128)] | None = None


class ScoreRequest(Body):
    """Body of /score: one prompt to each answer, or one to all."""

    model: str | None = None
    text_1: Texts
    text_2: Texts


def wants_reward(backend: Backend, model: str | None, conversation: Conversation) -> bool:
    """True if a chat request is for the reward model: by name, or by an answer at its end."""
    if backend.scorer is None:
        return False
    by_name = model == backend.reward_name and model != backend.model_name
    return by_name or (not model and not conversation.awaits_answer)


async def score_all(
    backend: Backend, conversations: list[Conversation]
) -> tuple[list[dict[str, float]], int]:
    """The last answers' five attributes, and the tokens read. Raises Problem 404, 400 or 429."""
    scorer = backend.scorer
    if scorer is None:
        raise Problem(404, "no reward model is served here", "model", "model_not_found")
    if any(conversation.awaits_answer for conversation in conversations):
        message = "messages: the last one must be the assistant's, it is rated"
        raise Problem(400, message, "messages")
    with backend.places(len(conversations)):
        used = sum(map(backend.rated_tokens, conversations))
        found = await all_of(scorer.score(one) for one in conversations)
    backend.metrics.add("prompt_tokens", used)
    return [{name: float(one[name]) for name in ATTRIBUTES} for one in found], used


async def hosted_reply(backend: Backend, conversation: Conversation) -> dict[str, Any]:
    """The attributes as a chat completion: choices[0].logprobs.content, token = name."""
    [attributes], used = await score_all(backend, [conversation])
    said = ",".join(f"{name}:{value}" for name, value in attributes.items())
    content = [
        {"token": name, "logprob": value, "bytes": None, "top_logprobs": []}
        for name, value in attributes.items()
    ]
    rated = choice(0, said, True, "stop", {"content": content})
    return reply("reward", backend.reward_name, [rated], used, 0)


def _row(attributes: dict[str, float]) -> dict[str, Any]:
    return {"attributes": attributes, "reward": weighted_reward(attributes)}


def pairs_of(asked: ScoreRequest) -> list[Conversation]:
    """Prompts with their answers. Raises Problem where the numbers do not match."""
    first, second = (
        [texts] if isinstance(texts, str) else texts for texts in (asked.text_1, asked.text_2)
    )
    if len(first) not in (1, len(second)):
        message = f"text_1: one prompt, or as many as answers ({len(second)})"
        raise Problem(400, message, "text_1")
    prompts = first * len(second) if len(first) == 1 else first
    return [Conversation.of(*pair) for pair in zip(prompts, second, strict=True)]


def router(backend: Backend) -> APIRouter:
    """POST /v1/rewards and /score."""
    wire = APIRouter()

    @wire.post("/v1/rewards", openapi_extra=described(RewardRequest))
    async def rewards(request: Request) -> Response:
        asked = parse_body(RewardRequest, await backend.read(request))
        check_name(asked.model, backend.reward_name)
        said = conversation_of(asked.messages)
        if asked.answers is not None and not said.awaits_answer:
            raise Problem(400, "answers: the last message must be the user's then", "answers")
        rated = [said] if asked.answers is None else [said.answered(a) for a in asked.answers]
        found, _ = await backend.while_there(request, score_all(backend, rated))
        if asked.answers is None:
            return Json({"model": backend.reward_name, **_row(found[0])})
        rows = [{"index": index, **_row(one)} for index, one in enumerate(found)]
        return Json({"model": backend.reward_name, "data": rows})

    @wire.post("/score", openapi_extra=described(ScoreRequest))
    async def score(request: Request) -> Response:
        asked = parse_body(ScoreRequest, await backend.read(request))
        check_name(asked.model, backend.reward_name)
        rated = pairs_of(asked)
        found, used = await backend.while_there(request, score_all(backend, rated))
        rows = [
            {"index": index, "object": "score", "score": weighted_reward(one)}
            for index, one in enumerate(found)
        ]
        told = {"object": "list", "model": backend.reward_name, "data": rows}
        return Json({**told, "usage": usage(used, 0)})

    return wire
