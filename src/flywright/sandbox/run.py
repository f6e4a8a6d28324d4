"""Run untrusted Python against tests, and decide here whether it passed.

    sandbox = Sandbox(SandboxSettings())
    outcome = await sandbox.run("def double(x): return 2 * x", ["assert double(2) == 4"])

Two children, each behind its own walls: one runs the code, the other the tests (child.py). So code
that knows the usual tricks (an object equal to everything, a walk up the frames to the result,
sys.exit, a stolen file descriptor) has nothing to forge: expected values and the verdict's nonce,
without which the parent believes nothing, are never in its process.
"""

import asyncio
import contextlib
import json
import math
import os
import re
import secrets
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import Field

from flywright.sandbox.isolation import Isolation, Policy, child_command, find_isolation
from flywright.settings import Settings

VERDICT_BYTES = 64 << 10


class SandboxSettings(Settings):
    """Walls and limits. `seconds`: wall time from the children's start, and CPU time of each."""

    policy: Policy = "strict"
    seconds: float = Field(default=10.0, gt=0)
    memory_bytes: int = Field(default=512 << 20, ge=64 << 20)
    processes: int = Field(default=16, ge=1)
    file_bytes: int = Field(default=16 << 20, ge=0)
    concurrency: int = Field(default=2, ge=1)


@dataclass(frozen=True)
class Outcome:
    """What became of one program. `error` is one line, empty when it passed."""

    passed: bool
    error: str
    seconds: float


@dataclass(frozen=True)
class Job:
    """Code and its tests. With `names`, tests get only these from the code (see `Sandbox.run`)."""

    code: str
    tests: tuple[str, ...]
    names: tuple[str, ...] = ()


class Sandbox:
    """Runs jobs, at most `settings.concurrency` at a time, from any event loop.

    Raises FlywrightError when the machine cannot build the walls that the policy asks for.
    """

    def __init__(self, settings: SandboxSettings | None = None):
        self.settings = settings or SandboxSettings()
        self._isolation = find_isolation(self.settings.policy)
        self._pool = ThreadPoolExecutor(self.settings.concurrency, "sandbox")

    @property
    def isolation(self) -> str:
        """The walls in use: "bubblewrap", "namespaces" or "limits"."""
        return self._isolation.name

    async def run(self, code: str, tests: Sequence[str], names: Sequence[str] = ()) -> Outcome:
        """Run `tests` (Python statements, usually asserts) against `code`.

        Tests call the code's functions with plain data (numbers, texts, lists, tuples, dicts, sets,
        bytes) and get plain data back. With `names` they see only those functions; without, all
        that the code defines, except what would shadow a built-in.
        """
        job = Job(code, tuple(tests), tuple(names))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, run_job, job, self.settings, self._isolation)


def run_job(job: Job, settings: SandboxSettings, isolation: Isolation) -> Outcome:
    """Run one job to its verdict, blocking. Everything it started is dead when this returns."""
    if not job.tests:
        return Outcome(False, "no tests: nothing was verified", 0.0)
    start = time.monotonic()
    nonce = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True) as folder:
        if isolation.user:
            os.chown(folder, isolation.user, isolation.user)
        reply = _supervise({**asdict(job), "nonce": nonce}, settings, isolation, folder)
    seconds = time.monotonic() - start
    error = _error_in(reply, nonce)
    if error and seconds >= settings.seconds:
        error = f"timed out after {settings.seconds:g} s"
    return Outcome(not error, error, seconds)


def _supervise(
    job: dict[str, Any], settings: SandboxSettings, isolation: Isolation, folder: str
) -> bytes:
    """Start both children, read the verdict or what there is of one, end both by the deadline."""
    children: list[subprocess.Popen[bytes]] = []

    def end() -> None:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # its namespaces die with it

    timer = threading.Timer(settings.seconds, end)
    ours, theirs = socket.socketpair()
    try:
        with ours, theirs:
            children.append(_start("serve", theirs.fileno(), settings, isolation, folder))
            children.append(_start("judge", ours.fileno(), settings, isolation, folder))
        timer.start()
        tests, verdict = children[1].stdin, children[1].stdout
        assert tests is not None and verdict is not None
        with verdict:
            with contextlib.suppress(BrokenPipeError), tests:
                tests.write(json.dumps(job).encode())
            return verdict.read(VERDICT_BYTES)
    finally:
        timer.cancel()
        end()
        for child in children:
            child.wait()


def _start(
    role: str, handle: int, settings: SandboxSettings, isolation: Isolation, folder: str
) -> "subprocess.Popen[bytes]":
    """Start one child; its end of the pair keeps the number `handle`."""
    limits = {
        "AS": settings.memory_bytes,
        "CPU": math.ceil(settings.seconds),
        "NPROC": settings.processes,
        "FSIZE": settings.file_bytes,
        "NOFILE": 64,
        "CORE": 0,
    }
    plan = {"wall_seconds": settings.seconds + 1, "limits": limits}
    private = subprocess.PIPE if role == "judge" else subprocess.DEVNULL
    return subprocess.Popen(
        child_command(isolation, plan, f"{role}({handle})"),
        cwd=folder,
        env={},
        stdin=private,
        stdout=private,
        stderr=subprocess.DEVNULL,
        pass_fds=(handle,),
        start_new_session=True,
    )


def _error_in(reply: bytes, nonce: str) -> str:
    """The error that the verdict states, empty if the tests passed; no verdict is an error too."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        verdict = json.loads(reply)
        if secrets.compare_digest(verdict["nonce"], nonce):
            # without memory addresses, so that the same failure reads the same in each run
            return re.sub(r"0x[0-9a-fA-F]{6,}", "0x...", verdict["error"])
    return "the tests ended without a verdict"
