"""JSON over HTTP, with every failure as an AskError.

The error says whether asking again may help and how long the server asks to wait; the retries
themselves are the caller's (ask has limits for that).
"""

import asyncio
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from yarl import URL

from flywright.ask import AskError, Refused, TooLong
from flywright.ask.protocol import Fault
from flywright.errors import UserError

CONNECT_SECONDS = 10.0
JSON = {"content-type": "application/json"}
RETRYABLE = (408, 409, 425, 429, 500, 502, 503, 504)
FAULTS: dict[int, Fault] = {
    408: "timeout",
    429: "rate",
    **dict.fromkeys(range(500, 600), "overload"),
}
TOO_LONG = re.compile(r"context.length|context window|too long|maximum.*tokens", re.IGNORECASE)
REFUSED = re.compile(r"content.filter|content.management|moderation|safety", re.IGNORECASE)


@dataclass(frozen=True)
class Reply:
    """An answer; header names in any case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """The content as text, whatever it is."""
        return self.content.decode(errors="replace")


class Http:
    """One server's JSON; connections of its own for each event loop, as many as calls at once.

    Proxies are the environment's (HTTPS_PROXY, NO_PROXY, ...). Raises UserError for no address.
    """

    def __init__(self, base_url: str, api_key: str = "", timeout_seconds: float = 600.0):
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        key = api_key.strip()
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._timeout = aiohttp.ClientTimeout(timeout_seconds, sock_connect=CONNECT_SECONDS)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: aiohttp.ClientSession
        self._keeper: asyncio.Task[None] | None = None
        try:
            if not (host := URL(self.base_url).host):
                raise ValueError(f"{base_url!r} names no server")
            self._proxy = _proxy(URL(self.base_url).scheme, host)
        except ValueError as error:
            raise UserError(f"{base_url}: no address of a server ({error})") from None

    async def close(self) -> None:
        """Close the connections of this event loop."""
        if self._keeper and self._loop is asyncio.get_running_loop():
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        self._keeper = None

    def _connections(self) -> aiohttp.ClientSession:
        """This event loop's; a task keeps them, so that they are closed when the loop ends."""
        loop = asyncio.get_running_loop()
        if self._keeper is None or self._loop is not loop:
            connector = aiohttp.TCPConnector(limit=0)
            options = {"headers": self._headers, "timeout": self._timeout, "proxy": self._proxy}
            self._loop, self._session = loop, aiohttp.ClientSession(connector=connector, **options)
            self._keeper = loop.create_task(_until_cancelled(self._session))
        return self._session

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> Reply:
        """A kept connection that the server has closed meanwhile is no failure: once more."""
        try:
            try:
                return await self._once(method, path, body)
            except aiohttp.ServerDisconnectedError:
                return await self._once(method, path, body)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            late = isinstance(error, TimeoutError)
            said = "no answer in time" if late else " ".join(str(error).split())
            message = f"{self.base_url}: {said or type(error).__name__}"
            raise AskError(message, True, fault="timeout" if late else "overload") from None

    async def _once(self, method: str, path: str, body: bytes | None) -> Reply:
        where = self.base_url + path
        headers = JSON if body else None
        async with self._connections().request(method, where, data=body, headers=headers) as reply:
            return Reply(reply.status, reply.headers, await reply.read())

    async def call(self, path: str, body: Any = None, method: str = "POST") -> Any:
        """The JSON answer. Raises AskError, retryable where asking again may help."""
        raw = None if body is None else orjson.dumps(body)
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


def _proxy(scheme: str, host: str) -> str | None:
    """The environment's, with or without http:// before it."""
    found = getproxies().get(scheme) or getproxies().get("all")
    if not found or proxy_bypass(host):
        return None
    return found if "://" in found else f"http://{found}"


async def _until_cancelled(session: aiohttp.ClientSession) -> None:
    async with session:
        await asyncio.Event().wait()


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
