"""More processes at one flow: started here, on Ray, or by a Slurm array, which needs nothing more.

All of them run the same command on the same folder. Each but the first knows its number.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from flywright.errors import FlywrightError, UserError

NUMBER, PARENT = "FLYWRIGHT_WORKER", "FLYWRIGHT_PARENT"  # in a worker's environment


def number_here() -> int:
    """This process's number: as it was started, or its place in a Slurm array."""
    return int(os.environ.get(NUMBER) or os.environ.get("SLURM_ARRAY_TASK_ID") or 0)


class Helpers:
    """Workers of this machine beside this process; they end with it."""

    def __init__(self, count: int, arguments: list[str], tell: Callable[[str], None]):
        command = [sys.executable, "-m", "flywright.cli", "synth", *arguments]
        self._tell = tell
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        for number in range(1, count + 1):
            own = {**os.environ, NUMBER: str(number), PARENT: str(os.getpid())}
            self._running[number] = subprocess.Popen(
                command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )

    def look(self, wait: bool = False) -> None:
        """Take note of those that have ended."""
        for number, process in list(self._running.items()):
            status = process.wait() if wait else process.poll()
            if status is not None:
                del self._running[number]
                said = (process.communicate()[1] or b"").decode(errors="replace").strip()[-500:]
                if status not in (0, 75):
                    self._tell(
                        f"worker {number} ended with status {status}; {said or 'others go on'}"
                    )


def on_ray(address: str, count: int, work: Callable[[int], str]) -> str:
    """`work(number)` in `count` tasks of a Ray cluster whose machines share the folder's disk.

    Raises UserError without Ray or its cluster, and FlywrightError with what the first task says
    that fails.
    """
    try:
        import ray  # type: ignore[import-not-found]
    except ImportError:
        raise UserError("--ray needs ray: install flywright[scale]") from None
    here = Path.cwd()

    def task(number: int) -> tuple[int, str]:
        os.chdir(here)
        try:
            return 0, work(number)
        except FlywrightError as error:
            return error.exit_status, str(error)

    try:
        ray.init(address=address, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"--ray {address}: {str(error).strip().splitlines()[0]}") from None
    try:
        run = ray.remote(max_retries=3)(task)  # a machine that is lost is tried again elsewhere
        ended = ray.get([run.remote(number) for number in range(count)])
    finally:
        ray.shutdown()
    status, said = max(ended, key=lambda one: bool(one[0]))
    if status:
        failure = FlywrightError(said)
        failure.exit_status = status
        raise failure
    return said
