"""Run untrusted Python against tests, and decide here whether it passed.

    sandbox = Sandbox(SandboxSettings())
    outcome = await sandbox.run("def double(x): return 2 * x", ["assert double(2) == 4"])

Two children, each behind its own walls: one runs the code, the other the tests (child.py). So code
that knows the usual tricks (an object equal to everything, a walk up the frames to the result,
sys.exit, a stolen file descriptor) has nothing to forge: expected values and the verdict's nonce,
without which the parent believes nothing, are never in its process. docs/sandbox.md says what is
promised and what is not.
"""

import asyncio
import contextlib
import json
import math
import os
import re
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue

from pydantic import Field

from flywright.sandbox.isolation import Keeper, Policy, find_isolation
from flywright.settings import Settings

REFERENCE_FACTOR = 5.0  # how many times longer than the reference solution code may take


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
    timed_out: bool = False


@dataclass(frozen=True)
class Job:
    """Code and its tests. With `names`, tests get only these from the code (see `Sandbox.run`).

    `reference`: a right solution, where one is known; the time limit adapts to what it needs here.
    """

    code: str
    tests: tuple[str, ...]
    names: tuple[str, ...] = ()
    reference: str = ""


class Sandbox:
    """Runs jobs, at most `settings.concurrency` at a time, from any event loop.

    Raises FlywrightError when the machine cannot build the walls that the policy asks for.
    """

    def __init__(self, settings: SandboxSettings | None = None):
        self.settings = settings or SandboxSettings()
        self._isolation = find_isolation(self.settings.policy)
        self._pool = ThreadPoolExecutor(self.settings.concurrency, "sandbox")
        self._idle: SimpleQueue[Keeper] = SimpleQueue()

    @property
    def isolation(self) -> str:
        """The walls in use: "bubblewrap", "namespaces" or "limits"."""
        return self._isolation.name

    async def run(
        self, code: str, tests: Sequence[str], names: Sequence[str] = (), reference: str = ""
    ) -> Outcome:
        """Run `tests` (Python statements, usually asserts) against `code`.

        Tests call the code's functions with plain data (numbers, texts, lists, tuples, dicts, sets,
        bytes) and get plain data back; other objects they may use, but not compare. With `names`
        they see only those names; without, all that the code defines, except what would shadow a
        built-in. Time that the machine is too slow for even the `reference` is no failure.
        """
        job = Job(code, tuple(tests), tuple(names), reference)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.run_job, job)

    def run_job(self, job: Job) -> Outcome:
        """Run one job to its verdict, blocking. Everything it started is dead when this returns."""
        if not job.tests:
            return Outcome(False, "no tests: nothing was verified", 0.0)
        outcome = self._once(job, self.settings.seconds)
        if outcome.timed_out and job.reference:
            longest = REFERENCE_FACTOR * self.settings.seconds
            known = self._once(Job(job.reference, job.tests, job.names), longest)
            if known.passed and known.seconds * REFERENCE_FACTOR > self.settings.seconds:
                return self._once(job, known.seconds * REFERENCE_FACTOR)
        return outcome

    def _once(self, job: Job, seconds: float) -> Outcome:
        limits = {
            "AS": self.settings.memory_bytes,
            "CPU": math.ceil(seconds),
            "NPROC": self.settings.processes,
            "FSIZE": self.settings.file_bytes,
            "NOFILE": 64,
            "CORE": 0,
        }
        nonce = secrets.token_hex(16)
        for last in (False, True):  # a keeper can be killed, where memory is short for instance
            keeper = Keeper(self._isolation) if last else self._keeper()
            try:
                found = keeper.run({**asdict(job), "nonce": nonce}, seconds, limits)
            except (OSError, ValueError):
                continue
            self._idle.put(keeper)
            error = _error_in(found["verdict"], nonce)
            late = bool(error and found["timed_out"])
            error = f"timed out after {seconds:.3g} s" if late else error
            return Outcome(not error, error, found["seconds"], late)
        return Outcome(False, "the sandbox itself ended, twice", 0.0)

    def _keeper(self) -> Keeper:
        """An idle one of this process, else a new one."""
        with contextlib.suppress(Empty):
            while (keeper := self._idle.get_nowait()).owner == os.getpid():
                return keeper
        return Keeper(self._isolation)


def _error_in(reply: bytes, nonce: str) -> str:
    """The error that the verdict states, empty if the tests passed; no verdict is an error too."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        verdict = json.loads(reply)
        if secrets.compare_digest(verdict["nonce"], nonce):
            # without memory addresses, so that the same failure reads the same in each run
            return re.sub(r"0x[0-9a-fA-F]{6,}", "0x...", verdict["error"])
    return "the tests ended without a verdict"
