"""JSON over HTTP, with every failure as an AskError.

The error says whether asking again may help and how long the server asks to wait; the retries
themselves are the caller's (ask has limits for that).
"""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson

from flywright.ask import AskError, Refused, TooLong
from flywright.ask.protocol import Fault
from flywright.errors import UserError
from flywright.serve.connections import Connections, Reply

RETRYABLE = (408, 409, 425, 429, 500, 502, 503, 504)
FAULTS: dict[int, Fault] = {
    408: "timeout",
    429: "rate",
    **dict.fromkeys(range(500, 600), "overload"),
}
TOO_LONG = re.compile(r"context.length|context window|too long|maximum.*tokens", re.IGNORECASE)
REFUSED = re.compile(r"content.filter|content.management|moderation|safety", re.IGNORECASE)


class Http:
    """One server's JSON; connections of its own for each event loop."""

    def __init__(self, base_url: str, api_key: str = "", timeout_seconds: float = 600.0):
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        key = api_key.strip()
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._seconds = timeout_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        try:
            self._connections = Connections(self.base_url, self._headers)
        except ValueError as error:
            raise UserError(f"{base_url}: no address of a server ({error})") from None

    async def close(self) -> None:
        """Close the connections of this event loop."""
        if self._loop is asyncio.get_running_loop():
            await self._connections.close()
        self._loop = None

    async def _ask(self, method: str, path: str, body: bytes = b"") -> Reply:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._connections = loop, Connections(self.base_url, self._headers)
        try:
            async with asyncio.timeout(self._seconds):
                return await self._connections.ask(method, path, body)
        except (OSError, EOFError, ValueError) as error:
            late = isinstance(error, TimeoutError)
            said = "no answer in time" if late else " ".join(str(error).split())
            message = f"{self.base_url}: {said or type(error).__name__}"
            raise AskError(message, True, fault="timeout" if late else "overload") from None

    async def call(self, path: str, body: Any = None, method: str = "POST") -> Any:
        """The JSON answer. Raises AskError, retryable where asking again may help."""
        raw = b"" if body is None else orjson.dumps(body)
        return self._value(await self._ask(method, path, raw))

    def get(self, path: str) -> Any:
        """The JSON answer to a GET, also where no event loop may wait. Raises AskError."""

        async def got() -> Any:
            try:
                return await self.call(path, method="GET")
            finally:
                await self.close()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, got()).result()

    def _value(self, reply: Reply) -> Any:
        if reply.status != 200:
            raise self._fault(reply)
        try:
            return orjson.loads(reply.content)
        except ValueError:
            message = f"{self.base_url}: the answer is not JSON"
            raise AskError(message, retryable=True, fault="malformed") from None

    def _fault(self, reply: Reply) -> AskError:
        """The error for a status; what servers say of a request that is bad has no common code."""
        status = reply.status
        message = f"{self.base_url}: status {status}: {said_in(reply)}"
        if status in (400, 413, 422) and TOO_LONG.search(reply.text):
            return TooLong(message)
        if status in (400, 403) and REFUSED.search(reply.text):
            return Refused(message)
        fault = FAULTS.get(status, "failed")
        return AskError(message, status in RETRYABLE, _retry_after(reply), fault)

    async def text(self, path: str) -> str | None:
        """The text of a GET; None where there is none to be had. Raises AskError."""
        reply = await self._ask("GET", path)
        return reply.text if reply.status == 200 else None

    def misshapen(self, what: str) -> AskError:
        """The error for an answer that is JSON but not what the wire promises."""
        message = f"{self.base_url}: the answer has no {what}"
        return AskError(message, retryable=True, fault="malformed")


def said_in(reply: Reply) -> str:
    """The server's own message: OpenAI's shape, a bare string, or the start of the body."""
    try:
        value = orjson.loads(reply.content)
    except ValueError:
        value = reply.text
    if isinstance(value, dict):
        error = value.get("error", value.get("detail", value))
        value = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(value).split())[:300]


def _retry_after(reply: Reply) -> float:
    try:
        return max(0.0, float(reply.headers.get("retry-after", 0)))
    except ValueError:
        return 0.0  # an HTTP date: let the caller's own back-off decide
