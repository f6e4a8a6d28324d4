"""HTTP/1.1 over connections that are kept, on asyncio's streams: little work for a call.

What a synthetic-data run computes is mostly this. Proxies are the environment's (HTTPS_PROXY,
NO_PROXY ...); no redirects, no cookies, no compression. Errors: OSError, EOFError, ValueError.
"""

import asyncio
import ssl
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

CONNECT_SECONDS = 10.0
MOST_BYTES = 1 << 20  # of an answer's head; its body may be longer
NO_BODY = (204, 304)
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


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


def _proxy_of(url: SplitResult) -> SplitResult | None:
    named = getproxies()
    found = named.get(url.scheme) or named.get("all")
    if not found or proxy_bypass(url.hostname or ""):
        return None
    return urlsplit(found if "://" in found else f"http://{found}")


class _Dead(ConnectionError):  # noqa: N818 - reads as what happened
    """The connection ended before an answer began."""


class Connections:
    """To one server, in one event loop: as many as there are calls at once, used again."""

    def __init__(self, base_url: str, headers: dict[str, str]):
        self._url, self._proxy = urlsplit(base_url), _proxy_of(urlsplit(base_url))
        self._idle: list[Pair] = []
        for url in (self._url, *([self._proxy] if self._proxy else [])):
            if not url.hostname or url.port == 0:  # a port that is none is an error of its own
                raise ValueError(f"{url.geturl()!r} names no server")
        sent, prefix = {"host": self._url.netloc.rpartition("@")[2], **headers}, self._url.path
        if self._proxy and self._url.scheme == "http":
            prefix, sent = f"http://{sent['host']}{prefix}", sent | self._proxy_rights()
        self._prefix = prefix
        self._head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())

    async def ask(self, method: str, path: str, body: bytes = b"") -> Reply:
        """One request's answer. A kept connection that turns out to be closed is no error."""
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._head}"
        if body:
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        raw = b"%b\r\n%b" % (head.encode(), body)
        while True:
            kept = self._idle.pop() if self._idle else None
            if kept and kept[0].at_eof():
                kept[1].close()
                continue
            reader, writer = kept or await self._opened()
            try:
                writer.write(raw)
                reply, again = await _answer(reader)
            except _Dead:
                writer.close()
                if kept:
                    continue
                raise
            except BaseException:
                writer.close()
                raise
            if again:
                self._idle.append((reader, writer))
            else:
                writer.close()
            return reply

    async def close(self) -> None:
        """Close what is kept."""
        for _, writer in self._idle:
            writer.close()
        for _, writer in self._idle:
            with suppress(OSError):
                await writer.wait_closed()
        self._idle.clear()

    async def _opened(self) -> Pair:
        secure = self._url.scheme == "https"
        to = self._proxy or self._url
        port = to.port or (443 if to.scheme == "https" else 80)
        context = _certificates() if to.scheme == "https" else None
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                to.hostname, port, limit=MOST_BYTES, ssl=context, happy_eyeballs_delay=0.25
            )
            if self._proxy and secure:
                await self._tunnel(reader, writer)
        return reader, writer

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Through the proxy to the server itself."""
        there = f"{self._url.hostname}:{self._url.port or 443}"
        rights = "".join(f"{name}: {value}\r\n" for name, value in self._proxy_rights().items())
        writer.write(f"CONNECT {there} HTTP/1.1\r\nhost: {there}\r\n{rights}\r\n".encode())
        status, _ = await _head(reader)
        if status != 200:
            writer.close()
            raise ConnectionError(f"the proxy answers with status {status}")
        await writer.start_tls(_certificates(), server_hostname=self._url.hostname)

    def _proxy_rights(self) -> dict[str, str]:
        if not self._proxy or not self._proxy.username:
            return {}
        said = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
        return {"proxy-authorization": f"Basic {b64encode(said.encode()).decode()}"}


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and headers."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        if getattr(error, "partial", b""):
            raise
        raise _Dead("the connection was closed") from None
    except asyncio.LimitOverrunError:
        raise ValueError("the answer's head is too long") from None
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first[9:12]), {name.lower(): value.strip() for name, _, value in pairs}


async def _answer(reader: asyncio.StreamReader) -> tuple[Reply, bool]:
    """The answer, and whether the connection may be used again."""
    status, headers = await _head(reader)
    while 100 <= status < 200:  # that there will be an answer
        status, headers = await _head(reader)
    again = headers.get("connection", "").lower() != "close"
    if status in NO_BODY:
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
