"""An endpoint that counts what it is asked, in a thread of the tests' process."""

import asyncio
import threading
import time

import pytest
import uvicorn
from fastapi.responses import JSONResponse

from flywright.serve.fake import create_fake_app


class Endpoint:
    """The fake endpoint with a counter, a delay, and the most calls that were in flight.

    status: where it is given, the answer to every call, with a complaint.
    """

    def __init__(self, faults=(), seconds=0.01, status=0):
        self.calls = self.in_flight = self.most = 0
        self.gate_open = True
        app, self.seconds = create_fake_app(faults), seconds

        async def counted(scope, receive, send):
            paid = scope["type"] == "http" and scope["method"] == "POST"
            self.calls += paid
            self.in_flight += paid
            self.most = max(self.most, self.in_flight)
            try:
                if paid:
                    await asyncio.sleep(self.seconds)
                while paid and not self.gate_open:
                    await asyncio.sleep(0.01)
                answer = JSONResponse({"error": {"message": "no such key"}}, status)
                await (answer if paid and status else app)(scope, receive, send)
            finally:
                self.in_flight -= paid

        self.server = uvicorn.Server(
            uvicorn.Config(counted, port=0, lifespan="off", log_config=None)
        )
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_error):
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()


@pytest.fixture
def endpoint():
    with Endpoint() as running:
        yield running


@pytest.fixture(name="make_endpoint", scope="session")
def make_endpoint_fixture():
    return Endpoint
