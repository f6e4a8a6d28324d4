"""The files of a .nemo: members of a tar, or of a folder that it was unpacked to (SPEC 12.2).

A plain tar is read in place, by seeking. Its member names only ever look something up: nothing is
written under a name that an archive chose, and links in a tar are not followed.
"""

import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from flywright.errors import UserError


class Archive:
    """Files by their path inside the .nemo. `where` names it in errors."""

    def __init__(self, where: Path, openers: Mapping[str, Callable[[], Any]]):
        self.where, self._openers = where, openers
        self.names = frozenset(openers)

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        """Bytes of a file, or a part of it. Raises UserError where they are not all there."""
        if name not in self._openers:
            raise UserError(f"{self.where}: {name} is missing (is the download complete?)")
        try:
            with self._openers[name]() as stream:
                stream.seek(offset)
                data = stream.read(length)
        except (tarfile.TarError, EOFError):
            data = b""
        if len(data) < length or not data:
            raise UserError(f"{self.where}: {name} is cut short (is the download complete?)")
        return data


@contextmanager
def open_archive(source: Path) -> Iterator[Archive]:
    """An Archive over a .nemo file or folder.

    Raises UserError for what is neither a plain tar nor a folder: in a gzip nothing can be sought.
    """
    if source.is_dir():
        files = (path for path in source.rglob("*") if path.is_file())
        openers = {path.relative_to(source).as_posix(): partial(path.open, "rb") for path in files}
        yield Archive(source, openers)
        return
    if not source.is_file():
        raise UserError(f"{source}: no such .nemo file or folder")
    try:
        with tarfile.open(source, "r:") as tar:
            openers = {
                _safe(source, member.name): partial(tar.extractfile, member)
                for member in tar
                if member.isfile()
            }
            yield Archive(source, openers)
    except (tarfile.TarError, EOFError) as error:
        hint = "; unpack it with tar and name the folder" if _is_gzip(source) else ""
        raise UserError(f"{source}: not a readable tar: {error}{hint}") from None


def _is_gzip(source: Path) -> bool:
    with source.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _safe(source: Path, name: str) -> str:
    """A member's name without "./". Raises UserError for one that leaves the archive."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{source}: member {name!r} points out of the archive; not read")
    return path.as_posix()
