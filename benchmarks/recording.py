"""How a benchmark's result is kept: benchmarks/results/NAME.json, and the same as a table.

    rows = [row("batch 8", 9, 3, "naive", "tokens/s")]
    write_result("engine", "python benchmarks/engine.py", rows)

A ratio above 1 says that we are better.
"""

import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from os import cpu_count
from pathlib import Path
from typing import Any

from flywright.files import write_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def machine() -> str:
    """Processor, cores, and torch with its threads where it is loaded."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    said = f"{(names or [platform.machine()])[0]}, {cpu_count()} cores"
    if torch := sys.modules.get("torch"):
        said += f", torch {torch.__version__}, {torch.get_num_threads()} threads"
    return said


def row(
    what: str, ours: float, peer: float, peer_name: str, unit: str, less_is_better: bool = False
) -> dict[str, Any]:
    """One comparison."""
    ratio = round(peer / ours if less_is_better else ours / peer, 2)
    said = {"what": what, "ours": round(ours, 3), "peer": round(peer, 3)}
    return {**said, "peer_name": peer_name, "ratio": ratio, "unit": unit}


def heading(command: str, measured_on: Any = None) -> dict[str, Any]:
    """When, of which commit, where and by what command."""
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit,
        "machine": measured_on or machine(),
        "command": command,
    }


def write_result(
    name: str | Path, command: str, rows: Sequence[dict[str, Any]] = (), on: Any = None, **more: Any
) -> None:
    """Write the result under its name (or to a path) and print its rows.

    `on`: the machine where it is not this one; `more`: what else belongs to the result.
    """
    path = name if isinstance(name, Path) else RESULTS / f"{name}.json"
    write_json(path, {**heading(command, on), **more, "rows": list(rows)})
    for one in rows:
        print(
            f"{one['what']:<44} {one['ours']:>12,}   {one['peer_name']:<46} {one['peer']:>12,} "
            f"{one['unit']:<12} x{one['ratio']:.2f}",
            flush=True,
        )
