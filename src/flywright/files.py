"""Files that are either whole or absent: write to a temporary name, fsync, rename.

Nothing half-written can be taken for done. Also the hashes that fingerprints and record ids use.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flywright.errors import FlywrightError, UserError


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces; the form that hashes are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(*parts: Any, length: int = 16) -> str:
    """Hex SHA-256 of the parts' canonical JSON, cut to `length` characters."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:length]


def seed_from(*parts: Any) -> int:
    """A 63-bit seed from anything that JSON can hold: run seed, record id, sample index."""
    return int(digest(*parts), 16) >> 1


def file_hash(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, cut to 16 characters."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def folder_hash(folder: Path, pattern: str = "*") -> str:
    """One hash of the names and bytes of a folder's files that match `pattern`, in name order."""
    paths = sorted(path for path in folder.rglob(pattern) if path.is_file())
    return digest([(str(path.relative_to(folder)), file_hash(path)) for path in paths])


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Push every file below `folder`, and the folders themselves, to the disk."""
    for path in [*sorted(folder.rglob("*")), folder]:
        if path.is_file() or path.is_dir():
            _fsync(path)


@contextmanager
def named_disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError on `path` (disk full, no permission) into one line that names it."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and "os error" not in str(error):
            raise  # safetensors and tokenizers raise the system's errors as their own
        hint = " (is the disk full?)" if "requested and" in str(error) else ""  # numpy's words
        reason = getattr(error, "strerror", None) or f"{error}{hint}"
        raise FlywrightError(f"{path}: cannot write: {reason}") from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Hand out a temporary path beside `path`; fsync and rename it on success, remove it on error.

    Raises FlywrightError naming the path when the disk refuses (full, read-only).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with named_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _fsync(temporary)
            temporary.replace(path)
            _fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Hand out a temporary folder beside `path`; it takes the place of `path` on success only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with named_disk_errors(path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            fsync_tree(temporary)
            doomed = path.with_name(f".{path.name}.{os.getpid()}.old")
            if path.exists():
                path.rename(doomed)
            temporary.rename(path)
            shutil.rmtree(doomed, ignore_errors=True)
            _fsync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def refuse_filled(out: Path) -> None:
    """Raise UserError where `out` holds something: what a person has is never written over."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already and not an empty folder; name a new one")


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers left below `folder`; nobody may be writing there now."""
    for path in [*folder.rglob(".*.tmp"), *folder.rglob(".*.old")]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One run a folder. Raises FlywrightError where another one is at work."""
    with named_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("w")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        raise FlywrightError(f"{folder}: another run is at work there") from None
    with stream:
        remove_leftovers(folder)
        yield


def read_json(path: Path, missing_ok: bool = False) -> dict[str, Any]:
    """A file's JSON object; {} for no file where that is `missing_ok`.

    Raises UserError for a file that is missing, and for what is no JSON object.
    """
    if missing_ok and not path.exists():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object")
    return value


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON atomically (two spaces, keys in the order given)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
