"""Rows of a data file: plain, .gz, .bz2 or .zst; lines, JSON lines, or one JSON array."""

import bz2
import gzip
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import zstandard

from flywright.errors import UserError

Row = dict[str, Any]
OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".zst": zstandard.open}


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, without their ends. Raises UserError where it cannot be read."""
    try:
        with OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8") as stream:
            for line in stream:
                yield line.rstrip("\n")
    except (OSError, EOFError, UnicodeDecodeError, zstandard.ZstdError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot read: {reason}") from None


def placed_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """(where, object) of each row of JSON lines or of a JSON array; `where` is for messages.

    Raises UserError with file:line, or the row's number in an array, at the first bad one.
    """
    filled = ((n, line) for n, line in enumerate(read_lines(path), start=1) if line.strip())
    first = next(filled, None)
    if first is None:
        return
    lines = chain([first], filled)
    if first[1].lstrip().startswith("["):
        whole = _value(str(path), "\n".join(line for _, line in lines))
        placed = ((f"{path}: row {n}", row) for n, row in enumerate(whole, start=1))
    else:
        marked = ((f"{path}:{n}", line) for n, line in lines)
        placed = ((where, _value(where, line)) for where, line in marked)
    for where, row in placed:
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected an object")
        yield where, row


def _value(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON ({error})") from None


def read_rows(path: Path) -> Iterator[Row]:
    return (row for _, row in placed_rows(path))
