"""The ledger: an answerer that remembers every reply, so that no call is paid for twice.

    with Ledger(Path("replies.jsonl")) as ledger:     # one file: one process at a time
    with Ledger(Path("replies")) as ledger:           # a folder: any number of processes at once
        ask = Ledgered(completer, ledger)        # a Completer; Ledgered(completer, path) also works
        score = LedgeredScorer(scorer, ledger)   # a Scorer; many may share one ledger

A reply is on the disk before the caller sees it. After kill -9 at most the calls in flight are
paid for again; a changed parser, a new row or another order pays only for what was never asked.

A segment is an append-only JSONL file: {"check", "key", "asked", "kind", "model", "reply"} a line,
`check` being the CRC-32 of all that follows it. Each process that writes to a folder makes a
segment of its own and reads those of all others; of two replies to one key, the one in the older
segment counts. Of the (shared) disk this asks for: exclusive creation of a file, append, fsync; no
mmap, and no lock but the flock on a ledger of one file. Where each reply lies is indexed in SQLite,
in a private file under TMPDIR that is built when the ledger is opened: memory stays flat.
"""

import asyncio
import fcntl
import json
import os
import platform
import re
import sqlite3
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from flywright.ask.limits import Limited
from flywright.ask.protocol import Completer, Completion, Sampling, Scorer
from flywright.errors import FlywrightError
from flywright.files import canonical_json, digest, named_disk_errors
from flywright.records import Conversation

OPEN_SEGMENTS = 64  # kept open for reading
INDEX_KIB = 8 << 10  # of the index in memory
_LINE = re.compile(rb'\{"check":"([0-9a-f]{8})",("key":"([0-9a-f]{32})",.*)\n', re.DOTALL)
Line = tuple[str, bytes, asyncio.Future[None]]  # a key, its line, and who waits for it
Lease = Callable[[str], AbstractAsyncContextManager[Any]]
Pay = Callable[[], Awaitable[dict[str, Any]]]
Within = Callable[[Callable[[], Awaitable[bytes]]], Awaitable[bytes]]


async def at_once(call: Callable[[], Awaitable[bytes]]) -> bytes:
    """Within no limits."""
    return await call()


def _sealed(key: str, content: dict[str, Any]) -> bytes:
    rest = f'"key":"{key}",{canonical_json(content)[1:]}'.encode()
    return b'{"check":"%08x",%b\n' % (zlib.crc32(rest), rest)


def _key_of(raw: bytes) -> bytes | None:
    """The key of a line, or None if the line is damaged."""
    line = _LINE.fullmatch(raw)
    if line is None or zlib.crc32(line[2]) != int(line[1], 16):
        return None
    return bytes.fromhex(line[3].decode())


class _Index:
    """Where each reply lies, by key: (segment, offset, length). Gone with the process."""

    def __init__(self):
        self._adding = threading.Lock()
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._rows.execute("PRAGMA journal_mode=OFF")
        self._rows.execute(f"PRAGMA cache_size=-{INDEX_KIB}")
        columns = "key BLOB PRIMARY KEY, segment INT, offset INT, length INT"
        self._rows.execute(f"CREATE TABLE places ({columns}) WITHOUT ROWID")

    def add(self, rows: Iterable[tuple[bytes, int, int, int]]) -> None:
        with self._adding:  # what was written, from its thread; what was read, from the event loop
            self._rows.execute("BEGIN")
            self._rows.executemany("INSERT OR IGNORE INTO places VALUES (?,?,?,?)", rows)
            self._rows.execute("COMMIT")

    def find(self, key: bytes) -> tuple[int, int, int] | None:
        asked = "SELECT segment, offset, length FROM places WHERE key=?"
        return self._rows.execute(asked, (key,)).fetchone()

    def __len__(self) -> int:
        return self._rows.execute("SELECT count(*) FROM places").fetchone()[0]

    def close(self) -> None:
        self._rows.close()


class Ledger(AbstractContextManager["Ledger"]):
    """Replies by key: one segment (a path that ends in .jsonl), or a folder of them.

    Opening repairs a torn tail and skips damaged lines (`damaged` counts them; their calls are paid
    again). `lease`: held while a call is paid for, where several processes may ask the same
    (Crew.lease, with this ledger's `refresh`).
    Raises FlywrightError if another Ledger holds the file or the disk refuses.
    """

    def __init__(self, path: Path, lease: Lease | None = None):
        self.path = Path(path)
        self.damaged = 0
        self._lease = lease
        self._index = _Index()
        self._names: list[str] = []  # of segments, by number
        self._read_to: dict[str, int] = {}  # bytes of each segment that are indexed
        self._handles: dict[str, int] = {}  # of segments that were read lately
        self._own, self._file, self._end = "", -1, 0  # the segment that is written to
        self._in_flight: dict[str, asyncio.Task[Any]] = {}
        self._unwritten: list[Line] = []  # of the event loop; a batch of it is the writer's
        self._batch: list[Line] = []
        self._writing = threading.Lock()
        self._writer: asyncio.Task[None] | None = None
        one_file = self.path.suffix == ".jsonl"
        self._folder = self.path.parent if one_file else self.path
        with named_disk_errors(self.path):
            self._folder.mkdir(parents=True, exist_ok=True)
        if one_file:
            self._claim(self.path.name, os.O_CREAT)
            self._end = self._read(self._own)
            os.ftruncate(self._file, self._end)  # cut off an unfinished last line
        self.refresh()

    def _claim(self, name: str, flags: int) -> None:
        """Make one segment this process's own."""
        with named_disk_errors(self._folder / name):
            self._file = os.open(self._folder / name, os.O_RDWR | os.O_CLOEXEC | flags, 0o644)
        self._own = name
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            message = f"{self.path}: this ledger is in use by another run; wait for it or stop it"
            raise FlywrightError(message) from None
        except OSError:
            pass  # a disk without locks: a folder's segment has a name that nobody else takes

    def refresh(self) -> None:
        """Take in what other processes have written to the folder since."""
        if self.path.suffix != ".jsonl":
            for name in sorted(path.name for path in self._folder.glob("*.jsonl")):
                if name != self._own:
                    self._read(name)

    def _read(self, name: str) -> int:
        """Index the whole lines that were not read yet; returns where they end.

        A line that is not all there yet, on a disk that shows another machine's writes late, is
        skipped as damaged: it may be paid for again, but it is never believed.
        """
        start = self._read_to.get(name, 0)
        rows: list[tuple[bytes, int, int, int]] = []
        number = self._number(name)
        with (self._folder / name).open("rb") as stream:
            if os.fstat(stream.fileno()).st_size <= start:  # NFS knows better once it is open
                return start
            stream.seek(start)
            for raw in stream:
                if not raw.endswith(b"\n"):
                    break
                if key := _key_of(raw):
                    rows.append((key, number, start, len(raw)))
                else:
                    self.damaged += 1
                start += len(raw)
                if len(rows) == 4096:
                    self._index.add(rows)
                    rows = []
        self._index.add(rows)
        self._read_to[name] = start
        return start

    def _number(self, name: str) -> int:
        if name not in self._names:
            self._names.append(name)
        return self._names.index(name)

    def __len__(self) -> int:
        return len(self._index)

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file free. Calls under way end here; every reply that came is on the disk."""
        for task in self._in_flight.values():
            with suppress(RuntimeError):  # of an event loop that is closed
                task.cancel()
        try:
            self._flush()
        finally:
            for handle in [*self._handles.values(), *([self._file] if self._file >= 0 else [])]:
                os.close(handle)
            self._handles.clear()
            self._file = -1
            self._index.close()

    def find(self, key: str) -> Any | None:
        """The reply remembered under `key`, or None."""
        wanted = bytes.fromhex(key)
        place = self._index.find(wanted)
        if place is None:
            return None
        number, offset, length = place
        raw = os.pread(self._handle(self._names[number]), length, offset)
        return json.loads(raw)["reply"] if _key_of(raw) == wanted else None

    def _handle(self, name: str) -> int:
        if name == self._own:
            return self._file
        if name not in self._handles:
            if len(self._handles) == OPEN_SEGMENTS:
                os.close(self._handles.pop(next(iter(self._handles))))
            self._handles[name] = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
        return self._handles[name]

    async def once(self, key: str, pay: Pay, within: Within = at_once) -> Any:
        """The reply under `key`; `pay()` gives {kind, model, asked, reply} if there is none yet.

        within: what paying, with the reply's way to the disk, is done within. Two who ask the same
        at the same time share one call. A caller that gives up leaves the call running: what is
        paid for is kept.
        """
        found = self.find(key)
        if found is not None:
            return found
        task = self._in_flight.get(key)
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            task = asyncio.ensure_future(self._pay(key, pay, within))
            self._in_flight[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(task)

    def _landed(self, key: str, task: asyncio.Task[Any]) -> None:
        if self._in_flight.get(key) is task:
            del self._in_flight[key]
        if not task.cancelled():
            task.exception()  # looked at here, so that a caller who gave up leaves no warning

    async def _pay(self, key: str, pay: Pay, within: Within) -> Any:
        raw = b""

        async def paid() -> bytes:
            nonlocal raw
            raw = raw or _sealed(key, await pay())  # a disk that is late makes nobody pay again
            await self._commit(key, raw)
            return raw

        async with self._lease(key) if self._lease else nullcontext() as waited:
            found = self.find(key) if waited else None  # another process may have paid meanwhile
            if found is not None:
                return found
            raw = await within(paid)
        return json.loads(raw)["reply"]  # as it will be read back: key order and all

    async def _commit(self, key: str, raw: bytes) -> None:
        """Wait until the line is on the disk. Lines that come meanwhile share the next fsync."""
        loop = asyncio.get_running_loop()
        landed: asyncio.Future[None] = loop.create_future()
        self._unwritten.append((key, raw, landed))
        if self._writer is None or self._writer.done() or self._writer.get_loop() is not loop:
            self._writer = loop.create_task(self._write_all())
        await landed

    async def _write_all(self) -> None:
        try:
            while self._unwritten:
                self._batch, self._unwritten = self._unwritten, []
                waiting, failed = [landed for _, _, landed in self._batch], None
                try:
                    await asyncio.to_thread(self._write)
                except FlywrightError as error:
                    failed = error
                for landed in (each for each in waiting if not each.done()):
                    landed.set_exception(failed) if failed else landed.set_result(None)
        finally:
            self._flush()

    def _flush(self) -> None:
        """What came and was not written yet, when the event loop ends: it is paid for."""
        self._write()
        self._batch, self._unwritten = self._unwritten, []
        self._write()

    def _write(self) -> None:
        """Write the batch, unless another thread has."""
        with self._writing:
            batch, self._batch = self._batch, []
            if batch:
                self._append([(key, raw) for key, raw, _ in batch])

    def _append(self, lines: list[tuple[str, bytes]]) -> None:
        """Write at the end and fsync; on a full disk cut back to what was whole."""
        if self._file < 0:
            name = f"{time.time_ns():016x}-{platform.node()}-{os.getpid()}.jsonl"
            self._claim(name, os.O_CREAT | os.O_EXCL)
        raw = b"".join(line for _, line in lines)
        try:
            with named_disk_errors(self._folder / self._own):
                written = 0
                while written < len(raw):
                    written += os.pwrite(self._file, raw[written:], self._end + written)
                os.fsync(self._file)
        except FlywrightError:
            os.ftruncate(self._file, self._end)
            raise
        rows, number = [], self._number(self._own)
        for key, line in lines:
            rows.append((bytes.fromhex(key), number, self._end, len(line)))
            self._end += len(line)
        self._index.add(rows)


class _Remembering:
    """What Ledgered and LedgeredScorer share: the ledger, the key, and the counters."""

    def __init__(self, answerer: Completer | Scorer | Limited, where: Ledger | Path):
        self.model = answerer.model
        self._within = answerer.within if isinstance(answerer, Limited) else at_once
        self.ledger = where if isinstance(where, Ledger) else Ledger(where)
        self.asked = 0
        self.paid = 0

    async def _remember(
        self, kind: str, asked: dict[str, Any], call: Callable[[], Awaitable[Any]]
    ) -> Any:
        self.asked += 1

        async def pay() -> dict[str, Any]:
            self.paid += 1
            return {"asked": asked, "kind": kind, "model": self.model, "reply": await call()}

        key = digest(kind, self.model, asked, length=32)
        return await self.ledger.once(key, pay, self._within)


def _plain(prompt: Conversation | str) -> Any:
    if isinstance(prompt, str):
        return prompt
    return [[message.role, message.content] for message in prompt.messages]


class Ledgered(_Remembering):
    """A Completer that remembers every reply of another one.

    `asked` counts the questions, `paid` those that were really put to the answerer now.
    """

    def __init__(self, completer: Completer, where: Ledger | Path):
        super().__init__(completer, where)
        self._complete, self._reader = completer.complete, completer
        if isinstance(completer, Limited):  # its limits are put around the way to the disk, too
            self._complete, self._reader = completer.put, completer.completer

    async def complete(self, prompt: Conversation | str, sampling: Sampling) -> Completion:
        """The remembered reply, or a new one. Raises what the answerer raises; that is not kept."""

        async def call() -> dict[str, Any]:
            reply = await self._complete(prompt, sampling)
            value = vars(reply)
            return {name: value[name] for name in value if value[name] or name == "text"}

        asked = {"prompt": _plain(prompt), "sampling": sampling.key()}
        return Completion.from_dict(await self._remember("complete", asked, call))

    async def logprobs(self, context: str, continuations: list[str]) -> list[float]:
        """The remembered log-probabilities (natural log, summed a continuation), or new ones."""

        async def call() -> list[float]:
            values = await self._reader.logprobs(context, continuations)
            return [float(value) for value in values]

        asked = {"context": context, "continuations": continuations}
        return await self._remember("logprobs", asked, call)


class LedgeredScorer(_Remembering):
    """A Scorer that remembers every score of another one."""

    def __init__(self, scorer: Scorer | Limited, where: Ledger | Path):
        super().__init__(scorer, where)
        self._scorer: Scorer = scorer.completer if isinstance(scorer, Limited) else scorer

    async def score(self, conversation: Conversation) -> dict[str, float]:
        """The remembered attributes by name (0-4), or new ones."""

        async def call() -> dict[str, float]:
            scores = await self._scorer.score(conversation)
            return {name: float(value) for name, value in scores.items()}

        return await self._remember("score", {"conversation": _plain(conversation)}, call)
