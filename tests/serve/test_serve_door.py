"""The door: keys, origins, hosts, slow and vanishing clients, deadlines, metrics, logs, a page."""

import http.client
import json
import logging
import re
import socket
import time

import pytest
from fastapi.testclient import TestClient
from watched import Watched

from flywright.errors import UserError
from flywright.serve import guard, listen
from flywright.serve.app import policy_of

HI = {"messages": [{"role": "user", "content": "a secret fox"}], "max_tokens": 4}
KEY = "a-long-enough-key"


def ask(client, **headers):
    return client.post("/v1/chat/completions", json=HI, headers=headers)


def until(holds, seconds=20.0):
    last = time.monotonic() + seconds
    while not holds() and time.monotonic() < last:
        time.sleep(0.01)
    return holds()


def test_keys_let_in_and_nothing_else_does(app_of):
    client = TestClient(app_of(api_key_hashes=guard.key_hashes(f"{KEY}, another-key", "x")))
    assert ask(client, Authorization=f"Bearer {KEY}").status_code == 200
    assert ask(client, Authorization="bearer another-key").status_code == 200
    for wrong in ({}, {"Authorization": KEY}, {"Authorization": "Bearer \xff".encode("latin-1")}):
        response = ask(client, **wrong)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert response.json()["error"]["message"]
    assert client.put("/generate", json={}).json().startswith("send Authorization")
    assert client.get("/metrics").status_code == client.get("/openapi.json").status_code == 401
    assert {client.get(path).status_code for path in ("/health", "/", "/docs")} == {200}


def test_keys_come_from_the_environment_and_a_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text("first-key-1\nsecond-key-2\n")
    hashes = guard.from_environment({"FLYWRIGHT_API_KEYS": "third-key-3"}, path)
    assert all(guard.knows(hashes, key) for key in ("first-key-1", "second-key-2", "third-key-3"))
    assert not guard.knows(hashes, "first-key-2") and "first" not in str(hashes)
    path.write_text(" \n")
    for bad in (path, tmp_path / "none"):
        with pytest.raises(UserError, match="API key"):
            guard.from_environment({}, bad)
    with pytest.raises(UserError, match="shorter"):
        guard.key_hashes("short", "x")


def test_other_origins_are_let_in_by_name_only(app_of):
    origin = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    closed, opened = TestClient(app_of()), TestClient(app_of(cors=("https://a.example",)))
    assert "access-control-allow-origin" not in ask(closed, **origin).headers
    assert closed.options("/v1/chat/completions", headers=origin).status_code == 405
    allowed = opened.options("/v1/chat/completions", headers=origin)
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    other = opened.options("/v1/models", headers={**origin, "Origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:1424", 200), ("127.0.0.1", 200), ("0.0.0.0:1424", 200), ("[::1]:1424", 200),
     ("evil.example:1424", 421), ("localhost.evil.example", 421), ("[", 421), ("", 421)],
)  # fmt: skip
def test_a_loopback_server_answers_to_no_other_name(app_of, host, status):
    assert ask(TestClient(app_of(loopback=True)), Host=host).status_code == status
    assert ask(TestClient(app_of()), Host="any.example").status_code == 200


@pytest.fixture
def slow(decoder, tokenizer):
    return Watched(decoder, tokenizer, seconds_a_step=0.02)


LONG = {"max_tokens": 400, "ignore_eos": True}
WIRES = {
    "chat": ("POST", "/v1/chat/completions", {**HI, **LONG}),
    "stream": ("POST", "/v1/chat/completions", {**HI, **LONG, "stream": True}),
    "streams": ("POST", "/v1/completions", {"prompt": ["a", "b"], **LONG, "stream": True, "n": 2}),
    "nemo": ("PUT", "/generate", {"sentences": ["a", "b"], "tokens_to_generate": 400,
                                  "min_tokens_to_generate": 400}),
}  # fmt: skip


@pytest.mark.parametrize("wire", WIRES)
def test_work_ends_when_its_client_goes(live, app_of, slow, wire):
    app = app_of(slow)
    method, path, body = WIRES[wire]
    connection = http.client.HTTPConnection("127.0.0.1", live(app), timeout=20)
    connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
    assert until(lambda: slow.running)
    if "stream" in wire:
        assert connection.sock.recv(4096)
    running = slow.running
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.sock.close()
    assert until(lambda: not slow.running)
    assert slow.cancelled == running
    backend = app.state.backend
    assert until(lambda: backend.pending == backend.active == 0)


@pytest.mark.parametrize("wire", ["chat", "stream", "nemo"])
def test_what_takes_too_long_is_ended(app_of, slow, wire):
    app = app_of(slow, deadline_seconds=0.2)
    method, path, body = WIRES[wire]
    response = TestClient(app).request(method, path, json=body)
    if wire == "stream":
        assert "no answer within" in response.text.strip().splitlines()[-1]
        assert "[DONE]" not in response.text
    else:
        assert (response.status_code, response.headers["Retry-After"]) == (504, "1")
    assert slow.running == app.state.backend.pending == 0


def closed_within(port, sent, drip=b"", seconds=10.0):
    """The seconds after which the server closes a connection that sends `drip` again and again."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=0.05) as client:
        client.sendall(sent)
        while time.monotonic() - began < seconds:
            try:
                if not client.recv(65536):
                    return time.monotonic() - began
            except TimeoutError:
                pass
            except OSError:
                return time.monotonic() - began
            try:
                client.sendall(drip)
            except OSError:
                return time.monotonic() - began
    return None


def test_headers_and_bodies_that_drip_are_cut(live, app_of, monkeypatch):
    monkeypatch.setattr(listen, "HEADER_SECONDS", 0.3)
    port = live(app_of(body_seconds=0.3))
    assert closed_within(port, b"") is not None
    assert closed_within(port, b"GET /health HTTP/1.1\r\nHost: x\r\n", b"a: b\r\n") is not None
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    assert closed_within(port, head + b"Content-Length: 999\r\n\r\n", b" ") is not None
    # an answer that comes before the body does not keep the connection for the body
    head = head.replace(b"completions", b"nothing")
    assert closed_within(port, head + b"Content-Length: 999999\r\n\r\n", b" ") is not None
    whole = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(2):  # a client that keeps its connection is let be
        whole.request("GET", "/health")
        assert whole.getresponse().read()
        time.sleep(0.1)


def test_a_slow_body_is_told_so(live, app_of):
    port = live(app_of(body_seconds=0.2))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(
            b"PUT /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99\r\n\r\n{"
        )
        assert client.recv(4096).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: " + b"b" * 1_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_request_gets_a_400(live, app_of, sent):
    port = live(app_of())
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(sent)
        assert re.match(rb"HTTP/1.1 (4\d\d)", client.recv(4096))
    assert http_get(port, "/health") == 200


@pytest.mark.parametrize("path", ["/../etc/passwd", "/%2e%2e/%2e%2e/etc/x", "/docs/..%2f..%2fx",
                                  "//etc/passwd", "/\\..\\x", "/%00", "/page.html"])  # fmt: skip
def test_no_path_leads_out(live, app_of, path):
    assert http_get(live(app_of()), path) == 404


def http_get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("GET", path, skip_host=False)
    connection.endheaders()
    return connection.getresponse().status


def test_metrics_count_what_happened(app_of, reader):
    reader.stats = lambda: {"cache_blocks": 7, "name": "x"}
    client = TestClient(app_of())
    ask(client)
    client.post("/v1/chat/completions", json={**HI, "stream": True})
    client.post("/v1/completions", json={"prompt": ""})
    client.get("/nowhere/at/all")
    page = client.get("/metrics").text
    route = 'route="/v1/chat/completions"'
    assert f'flywright_requests_total{{{route},status="200"}} 2.0' in page
    assert 'flywright_requests_total{route="/v1/completions",status="400"} 1.0' in page
    assert 'flywright_requests_total{route="other",status="404"} 1.0' in page
    assert "flywright_completion_tokens_total 8.0" in page
    assert float(re.search(r"(?m)^flywright_prompt_tokens_total (\S+)", page).group(1)) > 10
    assert "flywright_first_token_seconds_count 1.0" in page
    assert f"flywright_request_seconds_count{{{route}}} 2.0" in page
    assert "flywright_cache_blocks 7.0" in page
    assert "flywright_pending_answers 0.0" in page
    other = TestClient(app_of()).get("/metrics").text  # every app counts for itself
    assert "flywright_completion_tokens_total 0.0" in other


def test_logs_hold_no_words_of_a_prompt_unless_asked(app_of, caplog, reader):
    def fail(*_):
        raise RuntimeError(f"{HI['messages']} made me fail")

    with caplog.at_level(logging.DEBUG):
        ask(TestClient(app_of()))
        reader.complete = fail
        response = ask(TestClient(app_of(), raise_server_exceptions=False))
        assert response.status_code == 500 and "fox" not in response.text
        assert "unexpected failure: RuntimeError" in caplog.text
        assert "secret fox" not in caplog.text
        ask(TestClient(app_of(log_prompts=True), raise_server_exceptions=False))
    assert "secret fox" in caplog.text


def test_a_draining_server_takes_nothing_new(app_of):
    app = app_of()
    app.state.backend.draining = True
    client = TestClient(app)
    for response in (ask(client), client.get("/health"), client.put("/generate", json={})):
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_pages_load_nothing_from_elsewhere_and_run_only_their_own_script(client, path):
    response = client.get(path)
    html, policy = response.text, response.headers["Content-Security-Policy"]
    assert not re.findall(r"(?:src|href|action)\s*=\s*\"(?!data:,|openapi\.json\")", html)
    assert "://" not in html and " style=" not in html and "onclick=" not in html
    assert policy == policy_of(html) and "default-src 'none'" in policy
    assert policy_of(html.replace("use strict", "use other")) != policy
    assert client.put(path).status_code == 405


def test_one_request_may_not_ask_for_more_than_the_house_holds(app_of):
    client = TestClient(app_of(max_pending=4))
    body = {"prompt": ["a", "b"], "n": 3}
    response = client.post("/v1/completions", json=body)
    assert response.status_code == 400 and "at most 4 answers" in response.text
