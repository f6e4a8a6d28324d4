"""Reading what a client sent: bounded in size, strict JSON, typed fields.

One reader and one set of checks for every wire. orjson refuses NaN, invalid UTF-8 and JSON nested
beyond its limit; the pydantic models are strict, so that `true` is no number.
"""

from typing import Any, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError

from flywright.records import Conversation
from flywright.serve.problems import Problem
from flywright.settings import near_miss


class Body(BaseModel):
    """Base of request bodies: strict types, unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)


AnyBody = TypeVar("AnyBody", bound=Body)


async def read_object(request: Request, max_bytes: int) -> dict[str, Any]:
    """The request's JSON object.

    Raises Problem: 415 other content type, 413 too large, 400 not a JSON object. The content type
    is required so that a web page cannot reach a local server with a plain form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "send the body with Content-Type: application/json")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise Problem(413, f"the body is larger than {max_bytes} bytes")
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
        first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        message = f"unknown field {field!r}{near_miss(kind, first['loc'])}"
        raise Problem(400, message, field, "unknown_field")
    raise Problem(400, f"{field}: {_plain(first['msg'])}", field)


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")


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
        raise Problem(400, f"{where}: {sorted(unknown)[0]!r} is not supported", where)
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
