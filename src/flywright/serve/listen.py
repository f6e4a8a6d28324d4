"""The process that listens: uvicorn with deadlines for headers, and SIGTERM that drains.

On SIGTERM new requests get 503 while the answers under way finish, for at most DRAIN_SECONDS; then
the process ends with status 0. A client has HEADER_SECONDS to send a request's headers.
"""

import asyncio
import logging
import signal
import time
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from flywright.serve.backend import Backend

HEADER_SECONDS = 15.0
DRAIN_SECONDS = 20.0  # torchrun kills its processes 30 s after it has told them to end
CONNECTIONS = 900  # beyond them 503; a process may commonly open 1,024 files


class Timely(H11Protocol):
    """uvicorn's connection, closed where a request's headers do not arrive in time.

    So is one on which a body goes on after its answer. However slowly bytes drip, time runs on.
    """

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client has come."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        super().connection_lost(exc)
        if self._late:
            self._late.cancel()

    def _watch(self) -> None:
        answered = self.cycle is not None and self.cycle.response_complete
        idle = self.conn.their_state is h11.IDLE
        waiting = idle or (answered and self.conn.their_state is h11.SEND_BODY)
        if waiting and self._late is None:
            self._late = self.loop.call_later(HEADER_SECONDS, self.transport.close)
        elif not waiting and self._late is not None:
            self._late.cancel()
            self._late = None


class Draining(uvicorn.Server):
    """uvicorn's server; the first SIGTERM lets the answers under way finish."""

    def __init__(self, config: uvicorn.Config, backend: Backend):
        super().__init__(config)
        self._backend = backend
        names = (backend.model_name, backend.reward_name)
        self._names = " and ".join(name for name in names if name)
        self._last = 0.0

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            address = f"[{host}]" if ":" in host else host
            print(f"serving {self._names} at http://{address}:{port} (Ctrl-C stops)", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal."""
        if sig != signal.SIGTERM or self._backend.draining:
            return super().handle_exit(sig, frame)
        self._backend.draining = True
        self._last = time.monotonic() + DRAIN_SECONDS

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self._backend.draining and (not self._backend.active or time.monotonic() > self._last):
            self.should_exit = True
        return await super().on_tick(counter)


def run(app: FastAPI, host: str = "127.0.0.1", port: int = 1424) -> None:
    """Serve until interrupted. Access is not logged."""
    backend: Backend = app.state.backend
    if backend.settings.log_prompts:
        logging.basicConfig(level=logging.INFO)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Timely,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=64 << 10,
        timeout_keep_alive=30,
    )
    Draining(config, backend).run()
