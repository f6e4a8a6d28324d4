"""Connections: kept and found closed, every length of body, through proxies, and over TLS."""

import asyncio
import ssl
import subprocess

import pytest

from flywright.ask import AskError
from flywright.errors import UserError
from flywright.serve.http import Http

JSON = b'{"said": "%s"}'
LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b"


def chunked(raw):
    parts = b"".join(b"%x;more=1\r\n%b\r\n" % (len(p), p) for p in (raw[:4], raw[4:]))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\nend: 1\r\n\r\n"


class Server:
    """Answers with `ways` in turn, then closes each connection that has had `each` answers."""

    def __init__(self, ways, each=100, tls=None):
        self.ways, self.each, self.tls = list(ways), each, tls
        self.connections, self.asked = 0, []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error):
        self.server.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        for _ in range(self.each):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0] or 0)
            self.asked.append(head + await reader.readexactly(length))
            raw = self.ways.pop(0) if self.ways else b""
            writer.write(raw)
            if b"length" not in raw and b"hunked" not in raw:
                break
        writer.close()


def test_every_length_of_body_over_one_connection():
    raw = JSON % b"x"
    plain = LENGTH % (len(raw), raw)
    until_closed = b"HTTP/1.0 200 OK\r\n\r\n" + raw
    patient = b"HTTP/1.1 100 Continue\r\n\r\n" + plain

    async def run():
        async with Server([plain, chunked(raw), patient, until_closed, plain]) as server:
            http = Http(f"http://127.0.0.1:{server.port}/api/v1/", "key\n")
            found = [await http.call("/v1/x", {"n": n}) for n in range(5)]
            await http.close()
            return found, server

    found, server = asyncio.run(run())
    assert found == [{"said": "x"}] * 5 and server.connections == 2
    assert server.asked[0].startswith(b"POST /api/v1/x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"authorization: Bearer key\r\n" in server.asked[0]
    assert server.asked[4].endswith(b'\r\n\r\n{"n":4}')


def test_a_kept_connection_that_is_closed_meanwhile_is_no_error():
    raw = JSON % b"x"

    async def run(pause_seconds):
        async with Server([LENGTH % (len(raw), raw)] * 3, each=1) as server:
            http = Http(f"http://127.0.0.1:{server.port}")
            for _ in range(3):
                assert await http.call("/x", {}) == {"said": "x"}
                await asyncio.sleep(pause_seconds)
            return server.connections

    assert [asyncio.run(run(seconds)) for seconds in (0, 0.05)] == [3, 3]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (3 << 20),
    ],
)
def test_what_is_no_answer_is_an_overload(answer):
    async def run():
        async with Server([answer], each=1) as server:
            with pytest.raises(AskError) as failed:
                await Http(f"http://127.0.0.1:{server.port}").call("/x", {})
            assert failed.value.fault == "overload" and failed.value.retryable

    asyncio.run(run())


def test_a_call_that_is_given_up_takes_its_connection_with_it():
    raw = JSON % b"x"

    async def run():
        async with Server([LENGTH % (len(raw) + 1, raw), LENGTH % (len(raw), raw)]) as server:
            http = Http(f"http://127.0.0.1:{server.port}", timeout_seconds=0.05)
            with pytest.raises(AskError, match="no answer in time") as failed:
                await http.call("/x", {})
            assert failed.value.fault == "timeout"
            assert await http.call("/x", {}) == {"said": "x"} and server.connections == 2

    asyncio.run(run())


@pytest.mark.parametrize("address", ["http://", "http://a:b", "http://[::1"])
def test_what_is_no_address_is_said_at_once(address):
    with pytest.raises(UserError, match="no address of a server"):
        Http(address)


async def tunnelled(reader, writer):
    """A proxy: CONNECT, then bytes both ways."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.rights = "Proxy-Authorization: Basic dTpwQA==" in head
    if not writer.rights:
        writer.write(b"HTTP/1.1 407 Who are you\r\n\r\n")
        return writer.close()
    port = int(head.split()[1].partition(":")[2])
    theirs = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"HTTP/1.1 200 Go\r\n\r\n")

    async def pump(source, target):
        while raw := await source.read(1 << 16):
            target.write(raw)
        target.close()

    await asyncio.gather(pump(reader, theirs[1]), pump(theirs[0], writer))


def test_over_tls_through_a_proxy_and_plainly_through_it(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trusted = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusted)
    raw = JSON % (b"x" * 100_000)
    monkeypatch.setenv("no_proxy", "")

    async def run():
        answers = [LENGTH % (len(raw), raw)] * 2
        async with Server(answers, tls=context) as server, Server(answers) as plain:
            proxy = await asyncio.start_server(tunnelled, "127.0.0.1", 0)
            port = proxy.sockets[0].getsockname()[1]
            url = f"https://localhost:{server.port}"
            assert len((await Http(url).call("/x", {}))["said"]) == 100_000
            monkeypatch.setenv("https_proxy", f"http://u:p%40@127.0.0.1:{port}")
            assert len((await Http(url).call("/x", {}))["said"]) == 100_000
            monkeypatch.setenv("https_proxy", f"127.0.0.1:{port}")
            with pytest.raises(AskError, match="407"):
                await Http(url).call("/x", {})
            monkeypatch.setenv("http_proxy", f"127.0.0.1:{plain.port}")
            await Http("http://far.away:8").call("/x", {})
            proxy.close()
            assert plain.asked[0].startswith(b"POST http://far.away:8/x HTTP/1.1\r\nHost: far.away")

    asyncio.run(run())
