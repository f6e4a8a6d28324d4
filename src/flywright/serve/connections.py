"""HTTP/1.1 over connections that are kept, on asyncio's streams: little work for a call.

What a synthetic-data run computes is mostly this. Proxies are the environment's (HTTPS_PROXY,
NO_PROXY ...); no redirects, no cookies, no compression. Errors: OSError, EOFError, ValueError.
"""

import asyncio
import ssl
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

CONNECT_SECONDS = 10.0
MOST_BYTES = 1 << 20  # of an answer's head; its body may be longer
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Head = tuple[int, dict[str, str]]  # status; headers, their names in small letters


@dataclass(frozen=True)
class Reply:
    """An answer; header names in small letters."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """The content as text, whatever it is."""
        return self.content.decode(errors="replace")


@cache
def _certificates() -> ssl.SSLContext:
    """Read once for all connections."""
    return ssl.create_default_context()


def _server(address: str) -> SplitResult:
    url = urlsplit(address)
    if not url.hostname or url.port == 0:  # a port that is no number is an error of its own
        raise ValueError(f"{address!r} names no server")
    return url


def _lines(headers: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


class Connections:
    """To one server, in one event loop: as many as there are calls at once, used again."""

    def __init__(self, base_url: str, headers: dict[str, str]):
        url, named = _server(base_url), getproxies()
        proxy = "" if proxy_bypass(url.hostname or "") else named.get(url.scheme, named.get("all"))
        self._proxy = _server(proxy if "://" in proxy else f"http://{proxy}") if proxy else None
        self._rights: dict[str, str] = {}
        if self._proxy and self._proxy.username:
            said = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
            self._rights["proxy-authorization"] = f"Basic {b64encode(said.encode()).decode()}"
        self._url, self._prefix, host = url, url.path, url.netloc.rpartition("@")[2]
        self._head = _lines({"host": host, **headers})
        if self._proxy and url.scheme == "http":
            self._prefix, self._head = f"http://{host}{url.path}", self._head + _lines(self._rights)
        self._idle: list[Pair] = []

    async def ask(self, method: str, path: str, body: bytes = b"") -> Reply:
        """One request's answer. A kept connection that turns out to be closed is no error."""
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._head}"
        if body:
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        while True:
            kept = self._idle.pop() if self._idle else None
            reader, writer = kept or await self._opened()
            again = False
            try:
                if not reader.at_eof():
                    writer.write(b"%b\r\n%b" % (head.encode(), body))
                if found := await _head(reader):
                    reply, again = await _answer(reader, *found)
                    return reply
                if not kept:
                    raise ConnectionError("the connection was closed")
            finally:
                if again:
                    self._idle.append((reader, writer))
                else:
                    writer.close()

    async def close(self) -> None:
        """Close what is kept."""
        for _, writer in self._idle:
            writer.close()
        await asyncio.gather(*(w.wait_closed() for _, w in self._idle), return_exceptions=True)
        self._idle.clear()

    async def _opened(self) -> Pair:
        to, secure = self._proxy or self._url, self._url.scheme == "https"
        port = to.port or (443 if to.scheme == "https" else 80)
        context = _certificates() if to.scheme == "https" else None
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                to.hostname, port, limit=MOST_BYTES, ssl=context, happy_eyeballs_delay=0.25
            )
            if self._proxy and secure:  # through it to the server itself
                there = f"{self._url.hostname}:{self._url.port or 443}"
                asked = f"CONNECT {there} HTTP/1.1\r\nhost: {there}\r\n{_lines(self._rights)}\r\n"
                writer.write(asked.encode())
                status, _ = await _head(reader) or (0, {})
                if status != 200:
                    writer.close()
                    raise ConnectionError(f"the proxy answers with status {status}")
                await writer.start_tls(_certificates(), server_hostname=self._url.hostname)
        return reader, writer


async def _head(reader: asyncio.StreamReader) -> Head | None:
    """Status and headers; None if the connection ended before."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise ValueError("the answer's head is too long") from None
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        if getattr(error, "partial", b""):
            raise
        return None
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first[9:12]), {name.lower(): value.strip() for name, _, value in pairs}


async def _answer(
    reader: asyncio.StreamReader, status: int, headers: dict[str, str]
) -> tuple[Reply, bool]:
    """The answer, and whether the connection may be used again."""
    while 100 <= status < 200:  # that there will be an answer
        status, headers = await _head(reader) or (0, {})
    again = headers.get("connection", "").lower() != "close"
    if status in (204, 304):
        content = b""
    elif headers.get("transfer-encoding", "").lower() == "chunked":
        content = await _chunks(reader)
    elif "content-length" in headers:
        content = await reader.readexactly(int(headers["content-length"]))
    else:
        content, again = await reader.read(), False
    return Reply(status, headers, content), again


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers
    return b"".join(parts)
