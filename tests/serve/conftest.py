"""A live server in a thread, on a free port, for clients that need real HTTP."""

import threading
import time

import pytest
import uvicorn


@pytest.fixture
def live():
    """`live(app) -> port`; every server stops at the end of the test."""
    started: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(app) -> int:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        started.append((server, thread))
        return server.servers[0].sockets[0].getsockname()[1]

    yield start
    for server, _ in started:
        server.force_exit = server.should_exit = True
    for _, thread in started:
        thread.join(timeout=10)
