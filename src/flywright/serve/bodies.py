"""Reading what a client sent: bounded in size and time, strict JSON, typed fields.

One reader and one set of checks for every wire. orjson refuses NaN, invalid UTF-8 and JSON nested
beyond its limit; the pydantic models are strict, so that `true` is no number.
"""

import asyncio
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import ClientDisconnect

from flywright.records import Conversation
from flywright.serve.problems import Problem
from flywright.settings import near_miss


class Body(BaseModel):
    """Base of request bodies: strict types, unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, tree: Any) -> Any:
        """The first unknown field, before others are looked at: of a million of them, too."""
        known = {field.alias or name for name, field in cls.model_fields.items()}
        for key in tree if isinstance(tree, dict) else ():
            if key not in known:
                short = key[:200]
                message = f"unknown field {short!r}{near_miss(cls, (short,))}"
                raise Problem(400, message, short, "unknown_field")
        return tree


class Json(JSONResponse):
    """A JSON answer; numbers that JSON does not have become null."""

    def render(self, content: Any) -> bytes:
        """As bytes."""
        return orjson.dumps(content)


# of a chat; its texts are bounded by the context, what stands around them is not
Messages = Annotated[list[dict[str, Any]], Field(min_length=1, max_length=10_000)]
AnyBody = TypeVar("AnyBody", bound=Body)


async def read_object(request: Request, max_bytes: int, seconds: float = 60.0) -> dict[str, Any]:
    """The request's JSON object.

    Raises Problem: 415 other content type, 413 too large, 408 too slow, 400 not a JSON object. The
    content type is required so that a web page cannot reach a local server with a plain form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "send the body with Content-Type: application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                body += part
                if len(body) > max_bytes:
                    raise Problem(413, f"the body is larger than {max_bytes} bytes")
    except TimeoutError:
        raise Problem(408, f"the body did not arrive within {seconds:g} seconds") from None
    except ClientDisconnect:
        raise Problem(499, "the client has gone") from None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise Problem(400, "the body must be a JSON object")
    return value


def parse_body(kind: type[AnyBody], tree: dict[str, Any]) -> AnyBody:
    """Check fields and types. Raises Problem(400) that names the field and its near miss."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
    place = errors[0]["loc"][:1]  # beyond it are the alternatives of a type
    said = dict.fromkeys(_plain(one["msg"]) for one in errors if one["loc"][:1] == place)
    field = str(place[0]) if place else None
    raise Problem(400, f"{field or 'the body'}: {', or '.join(list(said)[:4])}", field)


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")


def described(
    kind: type[Body] | dict[str, Any], neutral: dict[str, tuple[Any, ...]] | None = None
) -> Any:
    """How a route's OpenAPI entry tells of its body; `neutral` are further fields' only values."""
    schema = dict(kind) if isinstance(kind, dict) else kind.model_json_schema()
    defined = schema.pop("$defs", {})

    def inlined(node: Any) -> Any:
        if isinstance(node, list):
            return [inlined(one) for one in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return inlined(defined[node["$ref"].rpartition("/")[2]])
        return {key: inlined(value) for key, value in node.items()}

    whole = inlined(schema)
    for key, values in (neutral or {}).items():
        whole["properties"][key] = {"enum": list(values), "description": "not supported"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": whole}}}}


def conversation_of(messages: list[dict[str, Any]]) -> Conversation:
    """OpenAI messages as a Conversation; content is a string or a list of text parts.

    Raises Problem(400) for other roles, parts that are not text, or turns out of order.
    """
    plain = [_message(index, message) for index, message in enumerate(messages)]
    try:
        return Conversation.model_validate({"messages": plain})
    except ValidationError as error:
        reason = _plain(error.errors()[0]["msg"])
        raise Problem(400, f"messages: {reason}", "messages") from None


def _message(index: int, message: dict[str, Any]) -> dict[str, str]:
    where = f"messages.{index}"
    unknown = set(message) - {"role", "content", "name"}
    if any(message[key] not in (None, [], "") for key in unknown):
        raise Problem(400, f"{where}: {sorted(unknown)[0][:200]!r} is not supported", where)
    role = message.get("role")
    if role == "developer":
        role = "system"
    if role not in ("system", "user", "assistant"):
        raise Problem(400, f"{where}.role: must be system, user or assistant", f"{where}.role")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(where, part) for part in content)
    if not isinstance(content, str):
        raise Problem(400, f"{where}.content: must be a string", f"{where}.content")
    return {"role": role, "content": content}


def _part(where: str, part: Any) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    raise Problem(400, f"{where}.content: only text parts are supported", f"{where}.content")
