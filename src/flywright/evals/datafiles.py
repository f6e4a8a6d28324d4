"""Find a data set's files, and what must be in their rows."""

from pathlib import Path
from typing import Any

from flywright.data.rows import OPENERS
from flywright.errors import UserError


def find(path: Path, folder: str, *names: str) -> Path:
    """`path` itself if it is a file, else the first of `names` in it or in its `folder`.

    Raises UserError naming what was looked for.
    """
    path = Path(path)
    if path.is_file():
        return path
    for parent in (path / folder, path):
        for name in names:
            for suffix in ("", *OPENERS):
                candidate = parent / (name + suffix)
                if candidate.is_file():
                    return candidate
    packed = ", ".join(OPENERS)
    raise UserError(f"{path}: found neither {folder}/{names[0]} nor a packed one ({packed})")


def field(path: Path, row: dict[str, Any], name: str) -> Any:
    """A field that must be there. Raises UserError naming the file, the field and the row."""
    if name not in row:
        raise UserError(f"{path}: a row has no {name!r}: {str(row)[:80]}")
    return row[name]
