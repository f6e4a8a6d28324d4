"""A file of records through all filters: kept.jsonl, dropped.jsonl with reasons, hits.jsonl.

First what each record says of itself (reward, contamination), then copies among what is left: of
copies the first that is good enough stays. Two readings of the file; in memory stand some 60 bytes
a record, and what was found; fingerprints and vectors wait on the disk.
"""

import asyncio
import functools
import shutil
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from pydantic import ValidationError

from flywright.ask.protocol import Completer
from flywright.errors import UserError
from flywright.files import atomic_folder
from flywright.records import Comparison, Dialogue, Document, Prompt, Rating, fault_of, raw_lines
from flywright.synth import filters
from flywright.synth.decontaminate import Benchmarks, Hit, confirmed
from flywright.synth.embeddings import Embedder, near_vectors
from flywright.synth.texts import AnyRecord, noted, segments_of, text_of

BATCH = 512
KEPT, DROPPED, HITS = "kept.jsonl", "dropped.jsonl", "hits.jsonl"


@dataclass(frozen=True)
class Sieve:
    """What is left out: 0 or None turns a filter off. near: Jaccard; embedding: cosine."""

    exact: bool = True
    near: float = 0.8
    embedding: float = 0.0
    reward: float | None = None

    @property
    def names(self) -> list[str]:
        """What a record's lineage says that it passed."""
        said = {"exact": self.exact, f"near<{self.near:g}": self.near}
        said |= {f"cosine<{self.embedding:g}": self.embedding}
        said |= {f"reward>={self.reward or 0:g}": self.reward is not None}
        return [name for name, on in said.items() if on]


def record_of(value: Any, where: str) -> AnyRecord:
    """The record of a JSON object, by its fields. Raises UserError with file:line."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object")
    try:
        last = value["conversation"]["messages"][-1]["role"]
    except (KeyError, IndexError, TypeError):
        last = ""  # the record's own validation says what is wrong
    kind = Dialogue if last == "assistant" else Prompt
    named = {"text": Document, "chosen": Comparison, "helpfulness": Rating}
    kind = next((one for name, one in named.items() if name in value), kind)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{where}: not a {kind.__name__}: {fault_of(error)}") from None


def _poor(record: AnyRecord, least: float) -> str:
    """Why its reward does not suffice, or ""; pairs that the ground truth decided are exempt."""
    if isinstance(record, Comparison):
        reward = least if record.judge == "truth" else record.chosen_reward
    elif isinstance(record, Dialogue):
        reward = record.lineage.scores.get("reward")
    else:
        return ""
    return "no reward" if reward is None else "reward below the threshold" * (reward < least)


@dataclass
class _Passage:
    """One file on its way: what was found of each place."""

    source: Path
    scratch: Path
    offsets: array = field(default_factory=lambda: array("Q"))
    keys: array = field(default_factory=lambda: array("Q"))
    why: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    hits: list[tuple[int, Hit]] = field(default_factory=list)

    def records(self) -> Iterator[AnyRecord]:
        """All records, in file order."""
        self.offsets = array("Q")
        for number, offset, raw in raw_lines(self.source):
            where = f"{self.source}:{number}"
            try:
                value = orjson.loads(raw)
            except ValueError as error:
                raise UserError(f"{where}: not valid JSON ({error})") from None
            self.offsets.append(offset)
            yield record_of(value, where)

    def at(self, place: int) -> AnyRecord:
        """The record at a place."""
        with self.source.open("rb") as stream:
            stream.seek(self.offsets[place])
            return record_of(orjson.loads(stream.readline()), f"{self.source}: record {place + 1}")

    def drop(self, place: int, reason: str, **more: Any) -> None:
        """Note why a record goes; the first reason counts."""
        self.why.setdefault(place, (reason, more))

    def copies(self, places: np.ndarray, reason: str, found: dict[int, tuple[int, float]]) -> None:
        """Drop what repeats another of `places`."""
        for place, (of, likeness) in found.items():
            kept = self.at(int(places[of])).id
            self.drop(int(places[place]), reason, of=kept, likeness=round(likeness, 4))

    def staying(self) -> np.ndarray:
        """The places that nothing has dropped yet."""
        stays = np.ones(len(self.offsets), dtype=bool)
        stays[list(self.why)] = False
        return np.flatnonzero(stays)


def _look(
    way: _Passage, sieve: Sieve, benchmarks: Benchmarks | None, embedder: Embedder | None
) -> None:
    """First reading: rewards, contamination, fingerprints and vectors."""
    with ExitStack() as stack:
        names = ["vectors", *map(str, range(filters.BANDS))]
        to_vectors, *to_bands = (stack.enter_context((way.scratch / n).open("wb")) for n in names)
        places = enumerate(way.records())
        while numbered := list(islice(places, BATCH)):
            for place, record in numbered:
                if sieve.reward is not None and (reason := _poor(record, sieve.reward)):
                    way.drop(place, reason)
                if benchmarks:
                    found = benchmarks.hits(record.id, segments_of(record))
                    way.hits += ((place, hit) for hit in found)
            texts = [text_of(record) for _, record in numbered]
            keys, found = filters.fingerprints(texts)
            way.keys.extend(keys.tolist())
            for stream, band in zip(to_bands, found, strict=True):
                stream.write(band.tobytes())
            if embedder and sieve.embedding:
                to_vectors.write(embedder.embed(texts).tobytes())


def _decide(way: _Passage, sieve: Sieve, ask: Completer | None) -> None:
    """What goes, once all is known: benchmark items, then copies among the rest."""
    suspects = [n for n, (_, hit) in enumerate(way.hits) if not hit.sure]
    if ask and suspects:
        checked = asyncio.run(confirmed(ask, [way.hits[n][1] for n in suspects]))
        for number, hit in zip(suspects, checked, strict=True):
            way.hits[number] = (way.hits[number][0], hit)
    for place, hit in way.hits:
        if hit.sure:
            way.why.pop(place, None)
            way.drop(place, f"contaminated: {hit.method.partition(',')[0]}", of=hit.benchmark)
    if sieve.exact:
        left = way.staying()
        found = filters.exact_copies(np.frombuffer(way.keys, dtype=np.uint64)[left])
        way.copies(left, "exact copy", found)
    if sieve.near:
        left = way.staying()
        found = filters.near_copies(
            lambda place: text_of(way.at(int(left[place]))),
            lambda band: np.fromfile(way.scratch / str(band), dtype=np.uint64)[left],
            sieve.near,
        )
        way.copies(left, "near copy", found)
    if sieve.embedding and (way.scratch / "vectors").stat().st_size:
        left = way.staying()
        vectors = np.memmap(way.scratch / "vectors", np.float32, "r")
        vectors = vectors.reshape(len(way.offsets), -1)[left]
        way.copies(left, "alike by embedding", near_vectors(vectors, sieve.embedding))


def _write(way: _Passage, out: Path, passed: Sequence[str]) -> Counter[str]:
    """Second reading: every record goes to kept or, with its reason, to dropped."""
    counts = Counter({"in": 0, "out": 0})
    with (out / KEPT).open("w") as kept, (out / DROPPED).open("w") as dropped:
        for place, record in enumerate(way.records()):
            reason, more = way.why.get(place, ("", {}))
            counts["in"] += 1
            counts[f"dropped: {reason}" if reason else "out"] += 1
            if reason:
                told = record.model_dump(exclude_defaults=True)
                line = {"reason": reason, **more, "record": told}
                dropped.write(orjson.dumps(line).decode() + "\n")
                continue
            if not isinstance(record, Document):
                lineage = functools.reduce(noted, passed, record.lineage)
                record = record.model_copy(update={"lineage": lineage})
            kept.write(record.model_dump_json(exclude_defaults=True) + "\n")
    return counts


def filter_file(
    source: Path,
    out: Path,
    sieve: Sieve,
    benchmarks: Benchmarks | None = None,
    embedder: Embedder | None = None,
    ask: Completer | None = None,
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """(counts, hits as in hits.jsonl) of `source` filtered into the folder `out`.

    counts: in, out, "dropped: REASON". A hit that is not `sure` was only suspected, and stays.
    Raises UserError with file:line for a line that is no record.
    """
    with atomic_folder(out) as folder:
        scratch = folder / ".scratch"
        scratch.mkdir()
        way = _Passage(source, scratch)
        _look(way, sieve, benchmarks, embedder)
        _decide(way, sieve, ask)
        shutil.rmtree(scratch)
        passed = [*sieve.names, *(["decontaminated"] if benchmarks else [])]
        counts = _write(way, folder, passed)
        hits = [asdict(hit) for _, hit in way.hits]
        lines = (orjson.dumps(hit).decode() + "\n" for hit in hits)
        (folder / HITS).write_text("".join(lines), encoding="utf-8")
    return dict(counts), hits
