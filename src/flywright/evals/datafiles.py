"""Find and read a data set's files: plain, .gz, .bz2 or .zst; lines, or JSON lines."""

import bz2
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from flywright.errors import UserError

_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".zst": zstandard.open}


def find(path: Path, folder: str, *names: str) -> Path:
    """`path` itself if it is a file, else the first of `names` in it or in its `folder`.

    Raises UserError naming what was looked for.
    """
    path = Path(path)
    if path.is_file():
        return path
    for parent in (path / folder, path):
        for name in names:
            for suffix in ("", *_OPENERS):
                candidate = parent / (name + suffix)
                if candidate.is_file():
                    return candidate
    packed = ", ".join(_OPENERS)
    raise UserError(f"{path}: found neither {folder}/{names[0]} nor a packed one ({packed})")


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, without their ends. Raises UserError where it cannot be read."""
    try:
        with _OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8") as stream:
            for line in stream:
                yield line.rstrip("\n")
    except (OSError, EOFError, UnicodeDecodeError, zstandard.ZstdError) as error:
        raise UserError(f"{path}: cannot read: {error}") from None


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file. Raises UserError with file:line at the first bad line."""
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            yield _row(path, number, line)


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}:{number}: not valid JSON ({error})") from None
    if not isinstance(row, dict):
        raise UserError(f"{path}:{number}: expected an object")
    return row


def field(path: Path, row: dict[str, Any], name: str) -> Any:
    """A field that must be there. Raises UserError naming the file, the field and the row."""
    if name not in row:
        raise UserError(f"{path}: a row has no {name!r}: {str(row)[:80]}")
    return row[name]
