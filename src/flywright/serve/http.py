"""JSON over a pool of HTTP connections, with every failure as an AskError.

The error says whether asking again may help and how long the server asks to wait; the retries
themselves are the caller's (ask has limits for that).
"""

import asyncio
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import httpx2
import orjson

from flywright.ask import AskError, Refused, TooLong
from flywright.ask.protocol import Fault

POOL = 8  # connections
JSON = {"Content-Type": "application/json"}
RETRYABLE = (408, 409, 425, 429, 500, 502, 503, 504)
FAULTS: dict[int, Fault] = {
    408: "timeout",
    429: "rate",
    **dict.fromkeys(range(500, 600), "overload"),
}
TOO_LONG = re.compile(r"context.length|context window|too long|maximum.*tokens", re.IGNORECASE)
REFUSED = re.compile(r"content.filter|content.management|moderation|safety", re.IGNORECASE)


@cache
def _certificates() -> ssl.SSLContext:
    """Read once for all pools."""
    return ssl.create_default_context()


class Http:
    """One server's JSON over a pool of connections; a new pool for each event loop."""

    def __init__(self, base_url: str, api_key: str = "", timeout_seconds: float = 600.0):
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = httpx2.Timeout(timeout_seconds, connect=10.0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pools: list[httpx2.AsyncClient] = []
        self._busy: list[int] = []

    @contextmanager
    def _client(self) -> Iterator[httpx2.AsyncClient]:
        """The first pool with a free place. A pool looks through all its connections at each
        request: in one of hundreds, that would be most of what a call costs."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._pools, self._busy = loop, [], []
        pools, busy = self._pools, self._busy
        place = next((at for at, count in enumerate(busy) if count < POOL), len(busy))
        if place == len(busy):
            limits = httpx2.Limits(max_connections=POOL, max_keepalive_connections=POOL)
            options = {"headers": self._headers, "timeout": self._timeout, "limits": limits}
            pools.append(httpx2.AsyncClient(**options, verify=_certificates()))
            busy.append(0)
        busy[place] += 1
        try:
            yield pools[place]
        finally:
            busy[place] -= 1

    async def close(self) -> None:
        """Close the connections of this event loop."""
        if self._loop is asyncio.get_running_loop():
            for pool in self._pools:
                await pool.aclose()
        self._loop = None

    async def call(self, path: str, body: dict[str, Any], method: str = "POST") -> Any:
        """The JSON answer. Raises AskError, retryable where asking again may help."""
        sent = {"content": orjson.dumps(body), "headers": JSON}
        return self._value(await self._response(method, path, **sent))

    async def text(self, path: str) -> str | None:
        """The text of a GET; None where there is none to be had. Raises AskError."""
        response = await self._response("GET", path)
        return response.text if response.status_code == 200 else None

    async def _response(self, method: str, path: str, **sent: Any) -> httpx2.Response:
        try:
            with self._client() as client:
                return await client.request(method, self.base_url + path, **sent)
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from None

    def get(self, path: str) -> Any:
        """The JSON answer to a GET, without an event loop. Raises AskError."""
        try:
            response = httpx2.get(self.base_url + path, headers=self._headers, timeout=30.0)
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from None
        return self._value(response)

    def _unreachable(self, error: httpx2.HTTPError) -> AskError:
        reason = str(error) or type(error).__name__
        fault: Fault = "timeout" if isinstance(error, httpx2.TimeoutException) else "overload"
        return AskError(f"{self.base_url}: {reason}", retryable=True, fault=fault)

    def _value(self, response: httpx2.Response) -> Any:
        if response.status_code != 200:
            raise self._fault(response)
        try:
            return orjson.loads(response.content)
        except ValueError:
            message = f"{self.base_url}: the answer is not JSON"
            raise AskError(message, retryable=True, fault="malformed") from None

    def _fault(self, response: httpx2.Response) -> AskError:
        """The error for a status; what servers say of a request that is bad has no common code."""
        status, said = response.status_code, said_in(response)
        message = f"{self.base_url}: status {status}: {said}"
        if status in (400, 413, 422) and TOO_LONG.search(response.text):
            return TooLong(message)
        if status in (400, 403) and REFUSED.search(response.text):
            return Refused(message)
        fault = FAULTS.get(status, "failed")
        return AskError(message, status in RETRYABLE, _retry_after(response), fault)

    def misshapen(self, what: str) -> AskError:
        """The error for an answer that is JSON but not what the wire promises."""
        message = f"{self.base_url}: the answer has no {what}"
        return AskError(message, retryable=True, fault="malformed")


def said_in(response: httpx2.Response) -> str:
    """The server's own message: OpenAI's shape, a bare string, or the start of the body."""
    try:
        value = response.json()
    except ValueError:
        value = response.text
    if isinstance(value, dict):
        error = value.get("error", value.get("detail", value))
        value = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(value).split())[:300]


def _retry_after(response: httpx2.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("retry-after", 0)))
    except ValueError:
        return 0.0  # an HTTP date: let the caller's own back-off decide
