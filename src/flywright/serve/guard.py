"""The door of the server: who may come in, and a count of everything that does.

Before a request reaches a wire it is refused while the server drains (503), where it names another
host than this machine on a loopback server (421: a web page that rebound its name), or without a
valid key (401). Keys are compared as SHA-256 in constant time.
"""

import hmac
import ipaddress
import time
from collections.abc import Iterable
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flywright.errors import UserError
from flywright.serve.backend import Backend
from flywright.serve.problems import Problem, problem_of, response_of

OPEN = {"/", "/docs", "/health"}  # pages that ask for the key, and a probe


class Guard:
    """ASGI middleware around the wires."""

    def __init__(self, app: ASGIApp, backend: Backend, routes: Iterable[str]):
        self._app = app
        self._backend = backend
        self._routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        backend, path, status = self._backend, scope["path"], 0

        async def told(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        app = self._app
        if problem := self._refusal(path, {k: v.decode("latin-1") for k, v in scope["headers"]}):
            app = response_of(path, problem)
        began = time.perf_counter()
        backend.active += 1
        try:
            await app(scope, receive, told)
        except Exception as error:  # nothing goes further out: the next to log it would quote it
            problem = problem_of(error)
            if not status:
                await response_of(path, problem)(scope, receive, told)
        finally:
            backend.active -= 1
            route = path if path in self._routes else "other"
            backend.metrics.add("requests", 1, route, str(status or 499))
            backend.metrics.add("request_seconds", time.perf_counter() - began, route)

    def _refusal(self, path: str, headers: dict[bytes, str]) -> Problem | None:
        settings = self._backend.settings
        if self._backend.draining:
            return Problem(503, "the server is shutting down", retry_after_seconds=5)
        if settings.loopback and not is_local(headers.get(b"host", "localhost")):
            return Problem(421, "the Host header names another machine")
        if settings.api_key_hashes and path not in OPEN:
            kind, _, key = headers.get(b"authorization", "").partition(" ")
            if kind.lower() != "bearer" or not knows(settings.api_key_hashes, key.strip()):
                return Problem(401, "send Authorization: Bearer KEY with a valid key")
        return None


def is_local(host: str) -> bool:
    """True for localhost and numeric addresses: no name that somebody else's DNS answers for."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def key_hash(key: str) -> str:
    """What the server keeps of a key."""
    return sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def knows(hashes: Iterable[str], key: str) -> bool:
    """True if `key` is one of those behind `hashes`; takes as long for any wrong key."""
    found = key_hash(key)
    return sum(hmac.compare_digest(found, one) for one in hashes) > 0


def key_hashes(text: str, where: str) -> tuple[str, ...]:
    """Hashes of the keys in a text, divided by spaces, commas or lines. Raises UserError."""
    keys = text.replace(",", " ").split()
    if short := [key for key in keys if len(key) < 8]:
        raise UserError(f"{where}: {len(short)} API keys are shorter than 8 characters")
    return tuple(key_hash(key) for key in keys)


def from_environment(environment: Any, path: Any = None) -> tuple[str, ...]:
    """Keys' hashes from FLYWRIGHT_API_KEYS and from a file. Raises UserError."""
    hashes = key_hashes(environment.get("FLYWRIGHT_API_KEYS", ""), "FLYWRIGHT_API_KEYS")
    if path is None:
        return hashes
    try:
        found = key_hashes(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read API keys: {error}") from None
    if not found:
        raise UserError(f"{path}: no API key in it")
    return hashes + found
