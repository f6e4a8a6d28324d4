"""Find a data set's files, and what must be in their rows; a problem of one as a prompt."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import product
from pathlib import Path
from typing import Any

from flywright.data.rows import OPENERS
from flywright.errors import UserError
from flywright.files import file_hash
from flywright.records import Check, Conversation, Lineage, Prompt


class NotThere(UserError):  # noqa: N818 - reads as what happened
    """None of a data set's files is there."""


_read: ContextVar[dict[str, str] | None] = ContextVar("_read", default=None)


@contextmanager
def watched() -> Iterator[dict[str, str]]:
    """A dict that gets the name and the hash of every data file that is read within."""
    seen: dict[str, str] = {}
    token = _read.set(seen)
    try:
        yield seen
    finally:
        _read.reset(token)


def read_from(path: Path) -> Path:
    """The path, noted for whoever watches."""
    if (seen := _read.get()) is not None:
        seen[f"{path.parent.name}/{path.name}"] = file_hash(path)
    return path


def find(path: Path, folder: str, *names: str) -> Path:
    """`path` itself if it is a file, else the first of `names` in it or in its `folder`.

    Raises NotThere naming what was looked for.
    """
    path = Path(path)
    if path.is_file():
        return read_from(path)
    for parent, name, suffix in product((path / folder, path), names, ("", *OPENERS)):
        if (candidate := parent / (name + suffix)).is_file():
            return read_from(candidate)
    packed = ", ".join(OPENERS)
    raise NotThere(f"{path}: found neither {folder}/{names[0]} nor a packed one ({packed})")


def field(path: Path, row: dict[str, Any], name: str) -> Any:
    """A field that must be there. Raises UserError naming the file, the field and the row."""
    if name not in row:
        raise UserError(f"{path}: a row has no {name!r}: {str(row)[:80]}")
    return row[name]


def problem(task: str, name: str, asked: str, *checks: Check) -> Prompt:
    """A problem that people wrote, as its task's prompt."""
    conversation, lineage = Conversation.of(asked), Lineage(source=task, answer_by="human")
    return Prompt(id=name, conversation=conversation, task=task, checks=checks, lineage=lineage)
