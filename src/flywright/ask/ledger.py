"""The ledger: an answerer that remembers every reply, so that no call is paid for twice.

    with Ledger(Path("replies.jsonl")) as ledger:
        ask = Ledgered(completer, ledger)        # a Completer; Ledgered(completer, path) also works
        score = LedgeredScorer(scorer, ledger)   # a Scorer; many may share one ledger

A reply is on the disk before the caller sees it. After kill -9 at most the calls in flight are
paid for again; a changed parser, a new row or another order pays only for what was never asked.
The file is one append-only JSONL segment: {"key", "kind", "model", "asked", "reply", "check"} a
line, `check` being the CRC-32 of the line without it. One writer a file, held by flock.
"""

import asyncio
import fcntl
import json
import os
import zlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flywright.ask.protocol import Completer, Completion, Sampling, Scorer
from flywright.errors import FlywrightError
from flywright.files import canonical_json, digest, named_disk_errors
from flywright.records import Conversation


def _sealed(line: dict[str, Any]) -> bytes:
    check = zlib.crc32(canonical_json(line).encode())
    return (canonical_json({**line, "check": check}) + "\n").encode()


def _unsealed(raw: bytes) -> dict[str, Any] | None:
    """The line's content, or None if it is damaged."""
    try:
        line = json.loads(raw)
        check = line.pop("check")
    except (ValueError, KeyError, AttributeError):
        return None
    return line if check == zlib.crc32(canonical_json(line).encode()) else None


class Ledger(AbstractContextManager["Ledger"], AbstractAsyncContextManager["Ledger"]):
    """Replies by key in one file; only keys and file offsets stay in memory.

    Opening repairs a torn tail and skips damaged lines (`damaged` counts them; their calls are paid
    again). Raises FlywrightError if another Ledger holds the file or the disk refuses.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.damaged = 0
        self._places: dict[str, tuple[int, int]] = {}
        self._in_flight: dict[str, asyncio.Task[Any]] = {}
        self._unwritten: list[tuple[str, bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        with named_disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            message = f"{self.path}: this ledger is in use by another run; wait for it or stop it"
            raise FlywrightError(message) from None
        self._end = self._read()

    def _read(self) -> int:
        """Index all whole lines; cut off an unfinished last one. Returns the end of the file."""
        end = 0
        with os.fdopen(os.dup(self._file), "rb") as stream:
            for raw in stream:
                if not raw.endswith(b"\n"):
                    break
                line = _unsealed(raw)
                if line is None:
                    self.damaged += 1
                else:
                    self._places[line["key"]] = (end, len(raw))
                end += len(raw)
        with named_disk_errors(self.path):
            os.ftruncate(self._file, end)
        return end

    def __len__(self) -> int:
        return len(self._places)

    def __exit__(self, *_error: object) -> None:
        self.close()

    async def __aexit__(self, *_error: object) -> None:
        """Calls still under way end here; every reply that came is on the disk."""
        for task in self._in_flight.values():
            task.cancel()
        if self._writer is not None:
            await asyncio.wait((self._writer,))
        self.close()

    def close(self) -> None:
        """Give the file free. Every reply handed out is on the disk already."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def find(self, key: str) -> Any | None:
        """The reply remembered under `key`, or None."""
        place = self._places.get(key)
        if place is None:
            return None
        offset, length = place
        return json.loads(os.pread(self._file, length, offset))["reply"]

    async def once(self, key: str, pay: Callable[[], Awaitable[dict[str, Any]]]) -> Any:
        """The reply under `key`; `pay()` gives {kind, model, asked, reply} if there is none yet.

        Two who ask the same at the same time share one call. A caller that gives up leaves the call
        running: what is paid for is kept.
        """
        found = self.find(key)
        if found is not None:
            return found
        task = self._in_flight.get(key)
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            task = asyncio.ensure_future(self._pay(key, pay))
            self._in_flight[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(task)

    def _landed(self, key: str, task: asyncio.Task[Any]) -> None:
        if self._in_flight.get(key) is task:
            del self._in_flight[key]
        if not task.cancelled():
            task.exception()  # looked at here, so that a caller who gave up leaves no warning

    async def _pay(self, key: str, pay: Callable[[], Awaitable[dict[str, Any]]]) -> Any:
        raw = _sealed({"key": key, **await pay()})
        await self._commit(key, raw)
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
        while self._unwritten:
            batch, self._unwritten = self._unwritten, []
            failed: FlywrightError | None = None
            try:
                await asyncio.to_thread(self._append, [(key, raw) for key, raw, _ in batch])
            except FlywrightError as error:
                failed = error
            for landed in (landed for _, _, landed in batch if not landed.done()):
                landed.set_exception(failed) if failed else landed.set_result(None)

    def _append(self, lines: list[tuple[str, bytes]]) -> None:
        """Write at the end and fsync; on a full disk cut back to what was whole.

        Runs in a thread to its end even where the event loop is torn down meanwhile.
        """
        raw = b"".join(line for _, line in lines)
        try:
            with named_disk_errors(self.path):
                written = 0
                while written < len(raw):
                    written += os.pwrite(self._file, raw[written:], self._end + written)
                os.fsync(self._file)
        except FlywrightError:
            os.ftruncate(self._file, self._end)
            raise
        for key, line in lines:
            self._places[key] = (self._end, len(line))
            self._end += len(line)


class _Remembering:
    """What Ledgered and LedgeredScorer share: the ledger, the key, and the counters."""

    def __init__(self, model: str, where: Ledger | Path):
        self.model = model
        self.ledger = where if isinstance(where, Ledger) else Ledger(where)
        self.asked = 0
        self.paid = 0

    async def _remember(
        self, kind: str, asked: dict[str, Any], call: Callable[[], Awaitable[Any]]
    ) -> Any:
        self.asked += 1

        async def pay() -> dict[str, Any]:
            self.paid += 1
            return {"kind": kind, "model": self.model, "asked": asked, "reply": await call()}

        return await self.ledger.once(digest(kind, self.model, asked, length=32), pay)


def _plain(prompt: Conversation | str) -> Any:
    if isinstance(prompt, str):
        return prompt
    return [[message.role, message.content] for message in prompt.messages]


class Ledgered(_Remembering):
    """A Completer that remembers every reply of another one.

    `asked` counts the questions, `paid` those that were really put to the answerer now;
    `prompt_tokens` and `completion_tokens` count all replies, remembered ones too.
    """

    def __init__(self, completer: Completer, where: Ledger | Path):
        super().__init__(completer.model, where)
        self._completer = completer
        self.prompt_tokens = 0
        self.completion_tokens = 0

    async def complete(self, prompt: Conversation | str, sampling: Sampling) -> Completion:
        """The remembered reply, or a new one. Raises what the answerer raises; that is not kept."""

        async def call() -> dict[str, Any]:
            reply = await self._completer.complete(prompt, sampling)
            value = asdict(reply)
            return {name: value[name] for name in value if value[name] or name == "text"}

        asked = {"prompt": _plain(prompt), "sampling": sampling.key()}
        reply = Completion.from_dict(await self._remember("complete", asked, call))
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        return reply

    async def logprobs(self, context: str, continuations: list[str]) -> list[float]:
        """The remembered log-probabilities (natural log, summed a continuation), or new ones."""

        async def call() -> list[float]:
            values = await self._completer.logprobs(context, continuations)
            return [float(value) for value in values]

        asked = {"context": context, "continuations": continuations}
        return await self._remember("logprobs", asked, call)


class LedgeredScorer(_Remembering):
    """A Scorer that remembers every score of another one."""

    def __init__(self, scorer: Scorer, where: Ledger | Path):
        super().__init__(scorer.model, where)
        self._scorer = scorer

    async def score(self, conversation: Conversation) -> dict[str, float]:
        """The remembered attributes by name (0-4), or new ones."""

        async def call() -> dict[str, float]:
            scores = await self._scorer.score(conversation)
            return {name: float(value) for name, value in scores.items()}

        return await self._remember("score", {"conversation": _plain(conversation)}, call)
