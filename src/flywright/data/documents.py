"""Files of documents: JSONL, Parquet or plain text, in parts that processes share.

A part is some bytes of a JSONL file, a whole compressed or Parquet file, or several text files.
"""

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from typing import Any, Literal, NamedTuple

import orjson
import zstandard
from pydantic import Field

from flywright.errors import UserError
from flywright.settings import Settings

PART_BYTES = 64 << 20
_ROWS, _PACKED = (".jsonl", ".ndjson"), (".gz", ".zst")
_SHARD = re.compile(r"[\w-]+\.[\w.-]+")


class DocumentFiles(Settings):
    """One collection: where its files lie, what they hold, and which rules they have to pass.

    A JSONL or Parquet row holds a text in `field`; any other file is one text. `source` and
    `language` may name fields of the row, as "{lang}".
    """

    path: str = Field(description="a file, a folder, or a pattern such as web/**/*.jsonl.zst")
    source: str = Field(default="{source}", description="names the shard: GROUP.SOURCE.npy")
    language: str = Field(default="{language}", description='"en", "de" ...; "code" for programs')
    group: str = Field(default="", description="of the blend; empty: en, code or other")
    field: str = "text"
    translation: str = Field(default="", description="the field with it in another language")
    rules: Literal["web", "prose", "code", "pairs", "none", ""] = Field(
        default="", description="empty: pairs where there is a translation, code for code, else web"
    )

    @property
    def fields(self) -> list[str]:
        """The fields of a row that are read."""
        texts = [self.field, self.translation]
        named = [name for _, name, *_ in Formatter().parse(self.source + self.language)]
        return [name for name in (*texts, *named) if name]


class Text(NamedTuple):
    """A document; a pair's two sides; which rules it has to pass, and its shard."""

    text: str
    sides: tuple[str, ...]
    language: str
    rules: str
    shard: str


class Piece(NamedTuple):
    """The lines of a file that begin in start .. end; end 0: the whole file."""

    path: str
    start: int = 0
    end: int = 0


def _is_rows(path: Path) -> bool:
    return (path.with_suffix("") if path.suffix in _PACKED else path).suffix in _ROWS


def parts(path: str, most_bytes: int = PART_BYTES) -> Iterator[list[Piece]]:
    """Cut a collection's files, in the order of their names, into parts of about `most_bytes`."""
    base, root = Path(path), Path(Path(path).anchor)
    found = base.rglob("*") if base.is_dir() else root.glob(str(base.relative_to(root)))
    files = sorted(each for each in found if each.is_file())
    if not files:
        raise UserError(f"{path}: no such file, and no folder or pattern that holds files")
    texts: list[Piece] = []
    held = 0
    for file in files:
        size, name = file.stat().st_size, str(file)
        if file.suffix in _ROWS:
            starts = range(0, size, most_bytes)
            yield from ([Piece(name, start, min(start + most_bytes, size))] for start in starts)
        elif file.suffix == ".parquet" or _is_rows(file):
            yield [Piece(name)]
        else:
            texts.append(Piece(name))
            held += size
            if held >= most_bytes:
                yield texts
                texts, held = [], 0
    if texts:
        yield texts


def _opened(path: Path) -> Any:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".zst":  # across frames: compressors that use all cores write several
        reader = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), 1 << 20, True)
        return io.BufferedReader(reader, 1 << 20)  # pyright: ignore[reportArgumentType]
    return path.open("rb")


def read(files: DocumentFiles, part: list[Piece]) -> Iterator[Text]:
    """A part's documents, in order. Raises UserError with file:line for what cannot be read."""
    for piece in part:
        path = Path(piece.path)
        try:
            if path.suffix == ".parquet":
                yield from _parquet(path, files)
            elif _is_rows(path):
                yield from _lines(path, piece, files)
            else:
                with _opened(path) as stream:
                    yield _text(files, {files.field: stream.read().decode("utf-8")})
        except (EOFError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile) as error:
            raise UserError(f"{path}: damaged: {error}") from None
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None
        except OSError as error:
            raise UserError(f"{path}: cannot read: {error.strerror or error}") from None


def _text(files: DocumentFiles, row: Any) -> Text:
    """What a row says. Raises ValueError for one of another form."""
    if not isinstance(row, dict):
        raise ValueError("not an object with fields")
    for name in files.fields:
        if not isinstance(row.get(name), str):
            raise ValueError(f"no text in field {name!r}")
    text, language = row[files.field], files.language.format_map(row)
    group = files.group or (language if language in ("en", "code") else "other")
    shard = f"{group}.{files.source.format_map(row)}"
    if not _SHARD.fullmatch(shard):
        raise ValueError(f"{shard!r} cannot name a shard: letters, digits, '-', '_' and '.' only")
    rules, sides = "code" if language == "code" else "web", ()
    if files.translation:  # either side first, by a hash: both directions, no text twice
        rules, sides = "pairs", (text, row[files.translation])
        text = "\n".join(sides if zlib.crc32(text.encode()) & 1 else sides[::-1])
    return Text(text, sides, language, files.rules or rules, shard)


def _lines(path: Path, piece: Piece, files: DocumentFiles) -> Iterator[Text]:
    with _opened(path) as stream:
        place = number = 0
        if piece.start:
            stream.seek(piece.start - 1)
            place = piece.start - 1 + len(stream.readline())
        while (not piece.end or place < piece.end) and (line := stream.readline()):
            place, number = place + len(line), number + 1
            try:
                if not line.isspace():
                    yield _text(files, orjson.loads(line))
            except ValueError as error:
                known = not isinstance(error, orjson.JSONDecodeError)
                if piece.start:  # lines are counted only when an error has to name one
                    with path.open("rb") as before:
                        number += before.read(piece.start - 1).count(b"\n") + 1
                reason = error if known else f"not valid JSON ({error})"
                raise UserError(f"{path}:{number}: {reason}") from None


def _parquet(path: Path, files: DocumentFiles) -> Iterator[Text]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        line = "Parquet files need pyarrow: pip install 'flywright[data]'"
        raise UserError(f"{path}: {line}") from None
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for missing in sorted(set(files.fields) - set(file.schema_arrow.names)):
                raise UserError(f"{path}: no column {missing!r}")
            for batch in file.iter_batches(1024, columns=files.fields):
                for row in batch.to_pylist():
                    number += 1
                    yield _text(files, row)
    except (pyarrow.ArrowException, ValueError) as error:
        raise UserError(f"{path}: row {number}: {error}") from None
