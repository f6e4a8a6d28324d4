"""JSON over a pool of HTTP connections, with every failure as an AskError.

The error says whether asking again may help and how long the server asks to wait; the retries
themselves are the caller's (ask has limits for that).
"""

import asyncio
from typing import Any

import httpx2

from flywright.ask import AskError, TooLong

_TOO_LONG = ("context_length_exceeded", "maximum context length")  # OpenAI's and ours; vLLM's
RETRYABLE = (408, 409, 425, 429, 500, 502, 503, 504)


class Http:
    """One server's JSON over a pool of connections; a new pool for each event loop."""

    def __init__(self, base_url: str, api_key: str = "", timeout_seconds: float = 600.0):
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = httpx2.Timeout(timeout_seconds, connect=10.0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool: httpx2.AsyncClient | None = None

    def _client(self) -> httpx2.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._pool is None or self._loop is not loop:
            limits = httpx2.Limits(max_connections=256, max_keepalive_connections=256)
            self._pool = httpx2.AsyncClient(
                headers=self._headers, timeout=self._timeout, limits=limits
            )
            self._loop = loop
        return self._pool

    async def close(self) -> None:
        """Close the connections of this event loop."""
        if self._pool is not None and self._loop is asyncio.get_running_loop():
            await self._pool.aclose()
        self._pool = None

    async def call(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer. Raises AskError, retryable where asking again may help."""
        try:
            response = await self._client().post(self.base_url + path, json=body)
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from None
        return self._value(response)

    def get(self, path: str) -> Any:
        """The JSON answer to a GET, without an event loop. Raises AskError."""
        try:
            response = httpx2.get(self.base_url + path, headers=self._headers, timeout=30.0)
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from None
        return self._value(response)

    def _unreachable(self, error: httpx2.HTTPError) -> AskError:
        reason = str(error) or type(error).__name__
        return AskError(f"{self.base_url}: {reason}", retryable=True)

    def _value(self, response: httpx2.Response) -> Any:
        if response.status_code != 200:
            said = f"{self.base_url}: status {response.status_code}: {said_in(response)}"
            if response.status_code == 400 and any(word in response.text for word in _TOO_LONG):
                raise TooLong(said)
            raise AskError(
                said,
                retryable=response.status_code in RETRYABLE,
                retry_after_seconds=_retry_after(response),
            )
        try:
            return response.json()
        except ValueError:
            raise AskError(f"{self.base_url}: the answer is not JSON", retryable=True) from None

    def misshapen(self, what: str) -> AskError:
        """The error for an answer that is JSON but not what the wire promises."""
        return AskError(f"{self.base_url}: the answer has no {what}", retryable=True)


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
