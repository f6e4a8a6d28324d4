"""Run untrusted Python against tests, and decide here whether it passed.

    sandbox = Sandbox(SandboxSettings())
    outcome = await sandbox.run("def double(x): return 2 * x", ["assert double(2) == 4"])

Two children, each behind its own walls: one runs the code, the other the tests, and only plain
data passes between them. So code that knows the usual tricks (an object equal to everything, a walk
up the frames to the result, sys.exit, a stolen file descriptor) has nothing to forge: expected
values and the verdict's nonce are never in its process. The parent believes a verdict only with
this run's nonce.
"""

import asyncio
import contextlib
import json
import math
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from flywright.sandbox.isolation import (
    Isolation,
    child_program,
    find_isolation,
    interpreter,
)
from flywright.settings import Settings

VERDICT_BYTES = 64 << 10
MAX_CODE_CHARACTERS = 200_000


class SandboxSettings(Settings):
    """Walls and limits. `seconds`: wall time from the children's start, and CPU time of each."""

    policy: Literal["strict", "limited-ok"] = "strict"
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
    isolation: str


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

    async def run_many(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Run all jobs; outcomes stand in the order of the jobs."""
        return list(await asyncio.gather(*(self.run(j.code, j.tests, j.names) for j in jobs)))


def run_job(job: Job, settings: SandboxSettings, isolation: Isolation) -> Outcome:
    """Run one job to its verdict, blocking. Everything it started is dead when this returns."""
    start = time.monotonic()

    def outcome(error: str) -> Outcome:
        return Outcome(not error, error, time.monotonic() - start, isolation.name)

    if not job.tests:
        return outcome("no tests: nothing was verified")
    if len(job.code) > MAX_CODE_CHARACTERS:
        return outcome(f"the code is longer than {MAX_CODE_CHARACTERS} characters")
    folder = tempfile.mkdtemp(prefix="sandbox-") if isolation.name == "limits" else ""
    try:
        if folder and isolation.user:
            os.chown(folder, isolation.user, isolation.user)
        return outcome(_supervise(job, settings, isolation, folder or "/"))
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _supervise(job: Job, settings: SandboxSettings, isolation: Isolation, folder: str) -> str:
    """Start both children, wait for the verdict or the deadline, end both; the error or ""."""
    ours, theirs = socket.socketpair()
    nonce = secrets.token_hex(16)
    children: list[subprocess.Popen[bytes]] = []
    late = threading.Event()

    def end() -> None:
        for child in children:
            _kill(child)

    def deadline() -> None:
        late.set()
        end()

    timer = threading.Timer(settings.seconds, deadline)
    try:
        with ours, theirs:
            for role, end_of_pair in (("solution", theirs), ("tester", ours)):
                child = _start(role, end_of_pair.fileno(), settings, isolation, folder)
                children.append(child)
        timer.start()
        reply = _exchange(children[1], {**job.__dict__, "nonce": nonce})
    finally:
        timer.cancel()
        end()
        for child in children:
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
    return _verdict(
        reply, nonce, f"timed out after {settings.seconds:g} s" if late.is_set() else ""
    )


def _start(
    role: str, handle: int, settings: SandboxSettings, isolation: Isolation, folder: str
) -> "subprocess.Popen[bytes]":
    """Start one child; its end of the pair keeps the number `handle`."""
    plan = {
        "wall_seconds": settings.seconds + 1,
        "limits": {
            "AS": settings.memory_bytes,
            "CPU": math.ceil(settings.seconds),
            "NPROC": settings.processes,
            "FSIZE": settings.file_bytes,
            "NOFILE": 64,
            "CORE": 0,
        },
    }
    entry = {"solution": "serve", "tester": "judge"}[role]
    files = ("confine.py", "plain.py", f"{role}.py")
    program = child_program(isolation, files, plan, f"{entry}({handle})")
    is_tester = role == "tester"
    return subprocess.Popen(
        [*isolation.command, interpreter(), "-I", "-S", "-c", program],
        cwd=folder,
        env={},
        stdin=subprocess.PIPE if is_tester else subprocess.DEVNULL,
        stdout=subprocess.PIPE if is_tester else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(handle,),
        start_new_session=True,
    )


def _exchange(tester: "subprocess.Popen[bytes]", job: dict[str, Any]) -> bytes:
    """Hand the job to the tester and read its verdict, or what there is of one."""
    assert tester.stdin is not None and tester.stdout is not None
    try:
        tester.stdin.write(json.dumps(job).encode())
        tester.stdin.close()
    except BrokenPipeError:
        return b""
    return tester.stdout.read(VERDICT_BYTES)


def _verdict(reply: bytes, nonce: str, late: str) -> str:
    """The error that the verdict states; no verdict, or one without the nonce, is an error."""
    try:
        verdict = json.loads(reply)
        if secrets.compare_digest(str(verdict["nonce"]), nonce):
            return (
                "" if verdict["passed"] is True else late or _same_each_run(str(verdict["error"]))
            )
    except (ValueError, KeyError, TypeError):
        pass
    return late or "the tests ended without a verdict"


def _same_each_run(text: str) -> str:
    """Without memory addresses: the same failure reads the same, so evaluations repeat exactly."""
    return re.sub(r"0x[0-9a-fA-F]{6,}", "0x...", text)


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """End a child with its whole process group; the namespaces die with their first process."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
