"""What training tells of itself, one JSON object a step in metrics.jsonl.

A resumed run first drops the lines after the state it resumes from, so each step stands there once.
"""

import json
import time
from pathlib import Path
from typing import Any

from flywright.files import named_disk_errors, write_text


class Meter:
    """Appends to metrics.jsonl and knows tokens a second."""

    def __init__(self, path: Path, from_step: int):
        self._path = path
        self._drop_after(from_step)
        self._stream = path.open("a", encoding="utf-8")
        self._clock = time.perf_counter()

    def _drop_after(self, step: int) -> None:
        if not self._path.exists():
            return
        whole = [line for line in self._path.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in whole if json.loads(line)["step"] <= step]
        write_text(self._path, "".join(line + "\n" for line in kept))

    def log(self, step: int, tokens_in_step: int, values: dict[str, Any]) -> float:
        """Write one step's line; returns its tokens a second."""
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        speed = tokens_in_step / seconds
        line = {"step": step, **values, "seconds": round(seconds, 4)}
        with named_disk_errors(self._path):
            self._stream.write(json.dumps(line, allow_nan=False) + "\n")
            self._stream.flush()
        return speed

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
