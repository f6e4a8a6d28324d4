"""Answers and items as they come, kept so that a killed evaluation goes on where it was.

The journal's first line names what is evaluated; another evaluation's journal is thrown away, and
a last line that a crash cut short is dropped. It is removed once the results are written.
"""

import json
from pathlib import Path
from typing import Any

from flywright.evals.items import Item
from flywright.files import named_disk_errors


class Journal:
    """Append-only file of {"id", "items"} lines under one fingerprint."""

    def __init__(self, path: Path, fingerprint: str):
        self.path = path
        self.done: dict[str, list[Item]] = {}
        with named_disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = self._read(fingerprint)
            self._stream = path.open("r+b" if kept else "wb")
            self._stream.truncate(kept)
            self._stream.seek(kept)
            if not kept:
                self._write({"fingerprint": fingerprint})

    def _read(self, fingerprint: str) -> int:
        """Take over what is whole; returns how many bytes that is."""
        if not self.path.exists():
            return 0
        kept = 0
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream):
                row = _parse(line)
                if row is None or (number == 0 and row.get("fingerprint") != fingerprint):
                    break
                if number:
                    self.done[row["id"]] = [Item.model_validate(item) for item in row["items"]]
                kept += len(line)
        return kept

    def add(self, name: str, items: list[Item]) -> None:
        """Remember one prompt's items. Raises FlywrightError when the disk refuses."""
        self.done[name] = items
        self._write({"id": name, "items": [item.model_dump() for item in items]})

    def _write(self, row: dict[str, Any]) -> None:
        with named_disk_errors(self.path):
            self._stream.write(json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n")
            self._stream.flush()

    def close(self) -> None:
        """Keep the file for the next time."""
        self._stream.close()

    def remove(self) -> None:
        """The results are safe; the journal is done."""
        self.close()
        self.path.unlink(missing_ok=True)


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
