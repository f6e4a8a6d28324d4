"""Bodies of OpenAI's wire: the fields that are understood, and those that are refused.

A field that asks for nothing (`"tools": []`, `"presence_penalty": 0`) passes; one that asks for
what this server does not have is a 400 that names it, never silently dropped.
"""

from typing import Any

from pydantic import Field, field_validator

from flywright.ask import Sampling
from flywright.serve.bodies import Body
from flywright.serve.problems import Problem

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
