"""OpenAI's wire: /v1/chat/completions, /v1/completions and /v1/models.

What is not supported (streams, tools, response_format, penalties, echo ...) is refused with a 400
that names the field, never silently dropped; one that asks for nothing (`"tools": []`) passes. A
request that would not fit the context is a 400 too.
"""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field, field_validator

from flywright.ask import Sampling
from flywright.records import Conversation
from flywright.serve.backend import Backend, choice, reply, seeds_for
from flywright.serve.bodies import Body, conversation_of, parse_body
from flywright.serve.problems import Problem
from flywright.serve.reward_wire import check_model, hosted_reply, wants_reward

# fields of the protocol that this server does not have, with the values that ask for nothing
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "stream": (None, False),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "logit_bias": (None, {}),
    "logprobs": (None,),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "repetition_penalty": (None, 1),
    "echo": (None, False),
    "suffix": (None, ""),
    "best_of": (None, 1),
}


class AnswerRequest(Body):
    """The fields that chat and text completions have in common."""

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    n: int | None = Field(None, ge=1, le=128)
    user: str | None = None

    @field_validator("stop")
    @classmethod
    def _stop_is_usable(cls, value: str | list[str] | None) -> str | list[str] | None:
        texts = [value] if isinstance(value, str) else value or []
        if len(texts) > 16 or not all(texts):
            raise ValueError("up to 16 strings, none of them empty")
        return value

    def sampling(self, max_tokens: int, seed: int) -> Sampling:
        """As a Sampling; OpenAI's default temperature is 1."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=self.top_p or 1.0,
            top_k=min(max(self.top_k or 0, 0), 2**31),
            seed=seed,
            stop=tuple(stop),
        )


class ChatRequest(AnswerRequest):
    """Body of /v1/chat/completions."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)


class TextRequest(AnswerRequest):
    """Body of /v1/completions; the prompt is raw text, its control texts are parsed."""

    prompt: str | list[str]


def supported(tree: dict[str, Any]) -> dict[str, Any]:
    """The request without fields that ask for nothing. Raises Problem for those that ask."""
    for key, neutral in UNSUPPORTED.items():
        if key in tree and tree[key] not in neutral:
            raise Problem(400, f"{key} is not supported by this server", key, "unsupported_field")
    return {key: value for key, value in tree.items() if key not in UNSUPPORTED}


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
        return await _answers(backend, [conversation], [room], asked)

    @wire.post("/completions")
    async def text(request: Request) -> dict[str, Any]:
        asked = parse_body(TextRequest, supported(await backend.read(request)))
        check_model(asked.model, backend.model_name)
        prompts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
        if not 1 <= len(prompts) <= 128:
            raise Problem(400, "prompt: one string, or a list of 1 to 128", "prompt")
        rooms = [room_for(backend, prompt, asked.max_tokens or 16, 16) for prompt in prompts]
        return await _answers(backend, list(prompts), rooms, asked)

    return wire


async def _answers(
    backend: Backend, prompts: list[Conversation | str], rooms: list[int], asked: AnswerRequest
) -> dict[str, Any]:
    """`n` answers to each prompt, in order. A prompt's tokens count once, however many it gets."""
    count = asked.n or 1
    seeds = seeds_for(asked.seed, len(prompts) * count)
    asks = [
        (prompt, asked.sampling(room, seeds[index * count + sample]))
        for index, (prompt, room) in enumerate(zip(prompts, rooms, strict=True))
        for sample in range(count)
    ]
    done = await backend.complete(asks)
    chat = isinstance(asked, ChatRequest)
    choices = [choice(index, one.text, chat, one.finish) for index, one in enumerate(done)]
    read = sum(len(backend.prompt_ids(prompt)) for prompt in prompts)
    written = sum(one.completion_tokens or len(one.token_ids) for one in done)
    return reply("chatcmpl" if chat else "cmpl", backend.model_name, choices, read, written)
