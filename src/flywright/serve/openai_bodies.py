"""What may be asked on OpenAI's wire: the fields, their bounds, and what they mean as a Sampling.

Beside OpenAI's own fields stand those that its other servers have: top_k, min_p, min_tokens,
repetition_penalty, stop_token_ids, ignore_eos, guided_json, guided_regex, structured_outputs. What
is not supported is refused by name, never dropped; a value that asks for nothing passes.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, StrictInt, WithJsonSchema

from flywright.ask import Sampling
from flywright.ask.protocol import Ids
from flywright.serve.backend import Backend, usable
from flywright.serve.bodies import Body, Messages
from flywright.serve.problems import Problem
from flywright.tokenizer import chat

MOST_PROMPTS = 128
MOST_GRAMMAR_CHARACTERS = 1 << 16
Stop = Annotated[str, Field(min_length=1, max_length=1024)]

# fields of the protocol that this server does not have, with the values that ask for nothing
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "parallel_tool_calls": (None, True, False),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "logit_bias": (None, {}),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "suffix": (None, ""),
    "modalities": (None, ["text"]),
    "store": (None, False),
    "metadata": (None, {}),
    "service_tier": (None, "auto", "default"),
}


def supported(tree: dict[str, Any]) -> dict[str, Any]:
    """The request without fields that ask for nothing. Raises Problem for those that ask."""
    for key, neutral in UNSUPPORTED.items():
        value = tree.get(key)
        if not any(
            value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral
        ):
            raise Problem(400, f"{key} is not supported by this server", key, "unsupported_field")
    return {key: value for key, value in tree.items() if key not in UNSUPPORTED}


class StreamOptions(Body):
    """What a stream tells beside the answer."""

    include_usage: bool | None = None


class JsonSchema(Body):
    """A schema with its name."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """What an answer keeps to, as OpenAI says it."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(Body):
    """The same as vLLM says it."""

    json_: dict[str, Any] | str | None = Field(None, alias="json")
    regex: str | None = None
    grammar: str | None = None


class AnswerRequest(Body):
    """The fields that chat and text completions have in common."""

    model: str | None = None
    max_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=2**31)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    min_tokens: int | None = Field(None, ge=0)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stop_token_ids: list[int] | None = Field(None, max_length=64)
    ignore_eos: bool | None = None
    n: int | None = Field(None, ge=1, le=128)
    best_of: int | None = Field(None, ge=1, le=128)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    structured_outputs: StructuredOutputs | None = None
    user: str | None = None

    @property
    def top(self) -> int | None:
        """How many likely tokens to tell of; None where no log-probabilities are wanted."""
        raise NotImplementedError

    @property
    def counts(self) -> tuple[int, int]:
        """How many answers to draw for each prompt, and how many of them to give."""
        given = self.n or 1
        return max(self.best_of or given, given), given

    def faults(self) -> Iterator[tuple[bool, str]]:
        """What contradicts itself, the field first."""
        drawn, given = self.counts
        yield bool(self.best_of and self.best_of < given), "best_of: must be at least n"
        taken_back = bool(self.stream and drawn > given)
        yield taken_back, "best_of: not in a stream, where nothing can be taken back"
        unseen = self.stream_options is not None and not self.stream
        yield unseen, "stream_options: only with stream true"

    def check(self) -> None:
        """Raises Problem where fields contradict each other."""
        for holds, message in self.faults():
            if holds:
                raise Problem(400, message, message.partition(":")[0])

    def grammar(self) -> str:
        """What the answer keeps to, as Sampling has it. Raises Problem for two at once."""
        form, other = self.response_format, self.structured_outputs
        said: list[tuple[str, Any]] = [("json", self.guided_json), ("regex", self.guided_regex)]
        if other:
            said += [("json", other.json_), ("regex", other.regex), ("lark", other.grammar)]
        if form and form.type == "json_object":
            said.append(("json", {"type": "object"}))
        if form and form.type == "json_schema":
            if form.json_schema is None:
                raise Problem(400, "response_format: json_schema is missing", "response_format")
            said.append(("json", form.json_schema.schema_))
        found = [(kind, value) for kind, value in said if value is not None]
        if len(found) > 1:
            raise Problem(400, "response_format: only one grammar at a time", "response_format")
        for kind, value in found:
            text = value if isinstance(value, str) else orjson.dumps(value).decode()
            if len(text) > MOST_GRAMMAR_CHARACTERS:
                message = (
                    f"response_format: at most {MOST_GRAMMAR_CHARACTERS} characters of grammar"
                )
                raise Problem(400, message, "response_format")
            return f"{kind}:{text}"
        return ""

    def sampling(self, backend: Backend, max_tokens: int) -> Sampling:
        """As a Sampling without a seed; OpenAI's default temperature is 1. Raises Problem."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        grammar, least = self.grammar(), self.min_tokens or 0
        if grammar:
            backend.reader("response_format")
        if least > max_tokens:
            raise Problem(400, f"min_tokens: at most max_tokens, here {max_tokens}", "min_tokens")
        return Sampling(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else usable(self.temperature),
            top_p=self.top_p or 1.0,
            top_k=max(self.top_k or 0, 0),
            stop=tuple(stop),
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            min_tokens=least,
            end_ids=self._ends(backend),
            top_logprobs=self.top or 0,
            grammar=grammar,
        )

    def _ends(self, backend: Backend) -> Ids | None:
        if not self.stop_token_ids and not self.ignore_eos:
            return None
        wanted = tuple(self.stop_token_ids or ())
        backend.reader("stop_token_ids" if wanted else "ignore_eos")
        known(backend, wanted, "stop_token_ids")
        return (() if self.ignore_eos else chat.end_ids(backend.tokenizer)) + wanted


class ChatRequest(AnswerRequest):
    """Body of /v1/chat/completions."""

    messages: Messages
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)

    @property
    def top(self) -> int | None:
        """As logprobs and top_logprobs say."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def faults(self) -> Iterator[tuple[bool, str]]:
        """And those of a chat."""
        yield from super().faults()
        unseen = bool(self.top_logprobs and not self.logprobs)
        yield unseen, "top_logprobs: only with logprobs true"
        yield self.max_tokens == 0, "max_tokens: at least 1"


def _prompts(value: Any) -> Any:
    """One prompt or many, texts or token ids, as a list of texts and tuples."""
    many = value if isinstance(value, list) and value and type(value[0]) is not int else [value]
    if not 1 <= len(many) <= MOST_PROMPTS:
        raise ValueError(f"one prompt, or a list of 1 to {MOST_PROMPTS}")
    if not all(many):
        raise ValueError("a prompt must not be empty")
    for one in many:
        if not isinstance(one, str) and not (isinstance(one, list) and {*map(type, one)} == {int}):
            raise ValueError("a text, token ids, or a list of either")
    return [one if isinstance(one, str) else tuple(one) for one in many]


_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_TEXT = {"type": "string", "minLength": 1}
_MANY = {"type": "array", "minItems": 1, "maxItems": MOST_PROMPTS}
_PROMPT_SCHEMA = {
    "anyOf": [_TEXT, {**_MANY, "items": _TEXT}, _IDS, {**_MANY, "items": _IDS}],
}


class TextRequest(AnswerRequest):
    """Body of /v1/completions; a text prompt is raw, its control texts are parsed."""

    prompt: Annotated[Any, BeforeValidator(_prompts), WithJsonSchema(_PROMPT_SCHEMA)]
    echo: bool | None = None
    logprobs: Annotated[StrictInt, Field(ge=0, le=20)] | None = None

    @property
    def top(self) -> int | None:
        """As logprobs says."""
        return self.logprobs

    def faults(self) -> Iterator[tuple[bool, str]]:
        """And those of a text."""
        yield from super().faults()
        nothing = self.max_tokens == 0 and not self.echo
        yield nothing, "max_tokens: at least 1, or 0 with echo true"


def known(backend: Backend, ids: Ids, name: str) -> None:
    """Raises Problem(400) for token ids that are not in the vocabulary."""
    last = backend.tokenizer.vocab_size - 1
    ends = (min(ids, default=0), max(ids, default=0))
    if wrong := [token for token in ends if not 0 <= token <= last]:
        raise Problem(400, f"{name}: {str(wrong[0])[:80]} is not a token id (0 to {last})", name)
