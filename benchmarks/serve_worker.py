"""An engine's process as benchmarks/serve.py holds it: stopped but when it is asked."""

import json
import os
import select
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def last_line(text: str) -> str:
    """Where a traceback says what was wrong."""
    return (text.strip().splitlines() or ["no word"])[-1][:300]


class Worker:
    """An engine's process, stopped but when it is asked."""

    def __init__(self, kind: str, python: str, job: Row, env: dict[str, str], log: Path):
        self.kind, self.log = kind, log
        script = str(Path(__file__).with_name("serve_peer.py"))
        self._process = subprocess.Popen(
            [python, script, kind, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env=os.environ | env,
            start_new_session=True,
        )
        try:
            hello = self._answer(600)
        except BaseException:
            self.end()
            raise
        self.name: str = hello["name"]
        print(f"  {self.name}: loaded in {hello['load_seconds']:.0f} s", flush=True)
        self._signal(signal.SIGSTOP)

    def ask(self, command: Row) -> Row:
        """A command's answer. Raises RuntimeError with what the engine said was wrong."""
        assert self._process.stdin
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            said = self._answer(900)
        finally:
            self._signal(signal.SIGSTOP)
        if "error" in said:
            raise RuntimeError(said["error"])
        return said

    def end(self) -> None:
        """End it and what it started."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _answer(self, seconds: float) -> Row:
        assert self._process.stdout
        ready = select.select([self._process.stdout], [], [], seconds)[0]
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self.end()  # a late answer would be taken for the next one's
            why = last_line(self.log.read_text()) if ready else f"no answer in {seconds:.0f} s"
            raise RuntimeError(why)
        return json.loads(line)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
