"""What two runs of one recipe are compared by: everything that their steps made."""

import json
import os
from pathlib import Path

from flywright.files import digest, file_hash

TOY = Path(__file__).parent / "toy.toml"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TIMES = {"started", "finished", "seconds", "tokens_per_second", "mfu", "mfu_causal", "memory_bytes"}


def artifacts(run: Path) -> dict[str, str]:
    """File -> what is in it; of times nothing, of a ledger its keys, for they come in any order."""
    return {
        str(path.relative_to(run)): _content(path)
        for path in sorted((run / "steps").rglob("*"))
        if path.is_file()
    }


def _content(path: Path) -> str:
    if path.name == "manifest.json":
        return json.dumps(_timeless(path.read_text()))
    if path.name == "metrics.jsonl":
        return digest([_timeless(line) for line in path.read_text().splitlines()])
    if path.name == "ledger.jsonl":
        return digest(sorted(json.loads(line)["key"] for line in path.read_text().splitlines()))
    return file_hash(path)


def _timeless(text: str) -> dict:
    said = json.loads(text).items()
    return {name: v for name, v in said if name not in TIMES and not name.endswith("_seconds")}
