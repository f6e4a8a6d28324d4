"""From files of documents to token shards, over all cores: judged, copies left out, encoded.

    files -> parts -> each judged (judged/N) -> copies over all of them (copies/N)
                   -> each read again, what stays encoded (tokens/N) -> GROUP.SOURCE.npy

A part's work is a folder that is there whole or not at all, so a killed run goes on where it was;
the shards' bytes depend neither on the number of processes nor on who was killed when.
"""

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import cache, partial
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np

from flywright.data import dedup
from flywright.data.documents import PART_BYTES, DocumentFiles, Piece, parts, read
from flywright.data.quality import Features, Quality, reason
from flywright.data.shards import Append, WordEncoder, open_shard, shard_writer
from flywright.errors import FlywrightError, UserError
from flywright.files import atomic_folder, digest, remove_leftovers, write_json, write_text
from flywright.progress import Tick
from flywright.tokenizer import Tokenizer

Counts = dict[str, Counter[str]]
Job = tuple[str, DocumentFiles, list[Piece]]
_COPY = {dedup.EXACT: "duplicate", dedup.NEAR: "near duplicate"}
TOKENIZER = "tokenizer.hash"  # beside the shards: what their ids mean
INPUTS = "inputs.json"  # a hash of what they were made of
_TOGETHER = 4096  # documents whose shingles wait in memory


def prepare(
    collections: Sequence[DocumentFiles],
    tokenizer: Path,
    out: Path,
    quality: Quality,
    near: bool,
    workers: int,
    tick: Tick,
    part_bytes: int = PART_BYTES,
) -> Counts:
    """Write the shards of all collections into `out`; returns what became of each shard's texts.

    near: leave near copies out, too. workers: processes; 0: one a core. Raises UserError for files
    that cannot be read, or that are no longer those with which the work in `out` began.
    """
    counts, work = out / "counts.json", out / "work"
    remove_leftovers(out)
    cut = [(files, part) for files in collections for part in parts(files.path, part_bytes)]
    jobs = [(f"{number:06d}", *one) for number, one in enumerate(cut)]
    encoder = Tokenizer.load(tokenizer).hash
    _same_inputs(out / INPUTS, jobs, encoder)
    write_text(out / TOKENIZER, encoder)
    if not counts.exists():
        each = partial(_each, jobs, workers or os.cpu_count() or 1, tick)
        each(partial(_judge, quality), work / "judged")
        if not (work / "copies").exists():
            _mark_copies(work, [name for name, *_ in jobs], near)
        each(partial(_encode, work, tokenizer), work / "tokens")
        write_json(counts, _join(work, out))
    shutil.rmtree(work, ignore_errors=True)
    return {shard: Counter(found) for shard, found in json.loads(counts.read_text()).items()}


def refuse_other_tokenizer(shards: Path, tokenizer: Tokenizer) -> None:
    """Raise UserError where the shards in a folder say that they are of other tokens."""
    made_with = shards / TOKENIZER
    if made_with.exists() and made_with.read_text() != tokenizer.hash:
        raise UserError(f"{shards}: its shards were made with another tokenizer")


def _same_inputs(path: Path, jobs: list[Job], tokenizer: str) -> None:
    """Raise UserError where work began with other files (by size and time) or another tokenizer."""
    pieces = [(*piece, Path(piece.path).stat()) for *_, part in jobs for piece in part]
    state = digest(tokenizer, [(*piece, stat.st_size, stat.st_mtime_ns) for *piece, stat in pieces])
    if not path.exists():
        write_text(path, state)
    elif path.read_text() != state:
        raise UserError(f"{path.parent}: its files or tokenizer have changed since; remove it")


def _each(
    jobs: list[Job], workers: int, tick: Tick, work: Callable[[Path, Job], None], folder: Path
) -> None:
    """Do the work of each part whose folder is not there, in so many processes."""
    waiting = [job for job in jobs if not (folder / job[0]).exists()]
    tick(len(jobs) - len(waiting), len(jobs), folder.name)
    if workers == 1:
        for left, job in enumerate(waiting, start=1 - len(waiting)):
            work(folder / job[0], job)
            tick(len(jobs) + left, len(jobs), folder.name)
        return
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, context, _in_child) as pool:
        doing = [pool.submit(work, folder / job[0], job) for job in waiting]
        try:
            for left, done in enumerate(as_completed(doing), start=1 - len(waiting)):
                done.result()
                tick(len(jobs) + left, len(jobs), folder.name)
        except BrokenProcessPool:
            line = "a worker was killed (out of memory?); go on with fewer workers"
            raise FlywrightError(f"{folder}: {line}") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _in_child() -> None:
    """One thread, no interrupt of its own, and an end when the parent's comes."""
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        wait([parent.sentinel] if parent else [])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _judge(quality: Quality, folder: Path, job: Job) -> None:
    """rows.npy: which of the part's documents pass; keys.npy and bands.npy to find copies by."""
    counts: Counts = defaultdict(Counter)
    rows: list[int] = []
    keys: list[int] = []
    bands: list[np.ndarray] = []
    shingled: list[np.ndarray] = []
    for row, text in enumerate(read(job[1], job[2])):
        features = Features(text.text, text.language, text.sides)
        counts[text.shard]["read"] += 1
        if why := reason(features, text.rules, quality):
            counts[text.shard][why] += 1
            continue
        rows.append(row)
        keys.append(dedup.key(features))
        shingled.append(dedup.shingles(features))
        if len(shingled) == _TOGETHER:
            bands.append(dedup.bands(shingled))
            shingled = []
    bands.append(dedup.bands(shingled))
    with atomic_folder(folder) as temporary:
        np.save(temporary / "rows.npy", np.array(rows, dtype=np.int64))
        np.save(temporary / "keys.npy", np.array(keys, dtype=np.uint64))
        np.save(temporary / "bands.npy", np.concatenate(bands, axis=1))
        write_json(temporary / "counts.json", counts)


def _mark_copies(work: Path, names: list[str], near: bool) -> None:
    """copies/N.npy: for each of the part's documents that pass, whether it stays."""
    folders = [work / "judged" / name for name in names]
    ends = np.cumsum([len(np.load(folder / "rows.npy")) for folder in folders])
    with atomic_folder(work / "copies") as temporary:
        for name, marks in zip(names, np.split(dedup.copies(folders, near), ends), strict=False):
            np.save(temporary / name, marks)


@cache
def _encoder(folder: Path) -> WordEncoder:
    return WordEncoder(Tokenizer.load(folder))


def _encode(work: Path, tokenizer_folder: Path, folder: Path, job: Job) -> None:
    """A shard of the part's documents that stay, for each group and source."""
    encoder = _encoder(tokenizer_folder)
    rows = np.load(work / "judged" / job[0] / "rows.npy")
    marks = dict(
        zip(rows.tolist(), np.load(work / "copies" / f"{job[0]}.npy").tolist(), strict=True)
    )
    counts: Counts = defaultdict(Counter)
    writers: dict[str, Append] = {}
    with atomic_folder(folder) as temporary, ExitStack() as open_files:
        for row, text in enumerate(read(job[1], job[2])):
            mark, count = marks.get(row), counts[text.shard]
            if mark:
                count[_COPY[mark]] += 1
            if mark != 0:
                continue
            if text.shard not in writers:
                made = shard_writer(temporary / f"{text.shard}.npy", encoder.kind)
                writers[text.shard] = open_files.enter_context(made)
            ids = encoder.document(text.text)
            writers[text.shard](ids)
            count += {"kept": 1, "bytes": len(text.text.encode()), "tokens": len(ids)}
        write_json(temporary / "counts.json", counts)


def _join(work: Path, out: Path) -> Counts:
    """The parts' shards end to end in `out`, in the parts' order; all counts added up."""
    total: Counts = defaultdict(Counter)
    for path in sorted([*work.glob("judged/*/counts.json"), *work.glob("tokens/*/counts.json")]):
        for shard, found in json.loads(path.read_text()).items():
            total[shard].update(found)
    for shard in sorted(total):
        path = out / f"{shard}.npy"
        found = sorted(work.glob(f"tokens/*/{shard}.npy"))
        if found and not path.exists():
            with shard_writer(path, open_shard(found[0]).dtype) as append:
                for part in found:
                    append(open_shard(part))
        for part in found:  # so the tokens are on the disk twice for one shard only
            part.unlink()
    return dict(sorted(total.items()))
