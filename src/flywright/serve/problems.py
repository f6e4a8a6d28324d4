"""What goes wrong on a wire, as a status and one message; each wire has its own shape for it.

`/generate` answers with a bare JSON string as NeMo does, everything else with OpenAI's
`{"error": {"message", "type", "param", "code"}}`. No traceback ever reaches a client.
"""

import logging
import math
import traceback
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from flywright.ask import AskError, TooLong
from flywright.errors import UserError

log = logging.getLogger("flywright.serve")


@dataclass(eq=False)
class Problem(Exception):  # noqa: N818 - what it is called on the wire
    """A request that gets no answer: HTTP status, one line, and the field it is about."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    retry_after_seconds: float = 0.0


def problem_of(error: Exception) -> Problem:
    """Any exception as a Problem: the asker's fault is 4xx, the answerer's is 5xx."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail))
    if isinstance(error, UserError):
        return Problem(400, str(error))
    if isinstance(error, TooLong):
        return Problem(400, str(error), None, "context_length_exceeded")
    if isinstance(error, AskError):
        if not error.retryable:
            return Problem(502, f"the model could not answer: {error}")
        wait_seconds = error.retry_after_seconds or 1.0
        return Problem(503, str(error), retry_after_seconds=wait_seconds)
    if not isinstance(error, ConnectionError):  # which is nobody's fault here, or a planned one
        # where it happened, not what it said: that may hold words of a prompt
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error("unexpected failure: %s\n%s", type(error).__name__, where)
    return Problem(500, "the server failed on this request; its log says why")


def response_of(path: str, problem: Problem) -> JSONResponse:
    """The problem in the shape of the wire that `path` belongs to."""
    headers = {}
    if problem.retry_after_seconds:
        headers["Retry-After"] = str(math.ceil(problem.retry_after_seconds))
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if path.rstrip("/") == "/generate":
        return JSONResponse(problem.message, problem.status, headers)
    return JSONResponse(error_of(problem), problem.status, headers)


def error_of(problem: Problem) -> dict[str, Any]:
    """OpenAI's shape of it."""
    asked = "rate_limit_error" if problem.status == 429 else "invalid_request_error"
    kind = asked if problem.status < 500 else "server_error"
    said = {"message": problem.message, "type": kind, "param": problem.param, "code": problem.code}
    return {"error": said}


def install(app: Starlette) -> None:
    """Let every failure of `app` leave in the shape of its wire."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        allowed = (error.headers or {}) if isinstance(error, HTTPException) else {}
        response = response_of(request.url.path, problem_of(error))
        response.headers.update(allowed)
        return response

    for kind in (Problem, HTTPException, AskError, UserError, Exception):
        app.add_exception_handler(kind, handle)
