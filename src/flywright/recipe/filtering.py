"""Filter a file of records: `flywright synth filter SETTINGS.toml`.

data = "made.jsonl"            # records of any kind
out = "filtered"               # kept.jsonl, dropped.jsonl, hits.jsonl, hits.html, README.md
benchmarks = "benchmark-data"  # the folder that `flywright eval --data` takes
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from pydantic import Field

from flywright.ask import Completer
from flywright.ask.ledger import Ledger, Ledgered
from flywright.errors import UserError
from flywright.evals.tasks import PUBLIC, benchmark_texts
from flywright.recipe.answerers import generator as open_generator
from flywright.recipe.settings import GeneratorSettings
from flywright.records import parse_lines
from flywright.report.card import card_of_folder, write_card
from flywright.report.hits import write_hits
from flywright.serve.embedder import HttpEmbedder
from flywright.settings import Settings, load_settings
from flywright.synth.decontaminate import Benchmarks
from flywright.synth.embeddings import Embedder, StaticTable
from flywright.synth.stream import KEPT, Sieve, filter_file


class FilterFile(Settings):
    """What is filtered, and by what; 0 or nothing turns a filter off."""

    data: Path
    out: Path = Field(description="a folder; it is written anew")
    exact: bool = True
    near: float = Field(default=0.8, ge=0, le=1, description="Jaccard of 3-word shingles")
    reward: float | None = Field(default=None, description="least reward of an answer")
    benchmarks: Path | None = Field(default=None, description="folder of the benchmarks' files")
    texts: Path | None = Field(default=None, description='JSONL of {"benchmark", "text"} besides')
    words: int = Field(default=8, ge=2, description="words in a run")
    share: float = Field(default=0.5, gt=0, le=1, description="share of an item's runs")
    embedder: str = Field(
        default="", description="URL of an embeddings server, or a table's folder"
    )
    embedder_model: str = Field(default="", description="its name on the wire")
    api_key_variable: str = Field(default="", description="the embedder's key")
    alike: float = Field(default=0.95, ge=0, le=1, description="cosine of copies, by the embedder")
    judge: GeneratorSettings = Field(
        default=GeneratorSettings(), description="asked whether suspects are the same problem"
    )
    licences: dict[str, str] = Field(default={}, description="source = licence, for the card")


def _texts(own: FilterFile) -> Iterator[tuple[str, str]]:
    if own.benchmarks is not None:
        yield from benchmark_texts(own.benchmarks)
    for number, row in parse_lines(own.texts) if own.texts else ():
        if not isinstance(row, dict) or not {"benchmark", "text"} <= row.keys():
            raise UserError(f"{own.texts}:{number}: expected an object with benchmark and text")
        yield str(row["benchmark"]), str(row["text"])


def _embedder(own: FilterFile) -> Embedder | None:
    if own.embedder.startswith(("http://", "https://")):
        key = os.environ.get(own.api_key_variable, "")
        return HttpEmbedder(own.embedder, own.embedder_model, key)
    return StaticTable(Path(own.embedder)) if own.embedder else None


def run_filter(path: Path, overrides: list[str]) -> str:
    """Filter one file; returns a line with the counts."""
    own = load_settings(FilterFile, path, overrides)
    embedder, benchmarks = _embedder(own), None
    if own.benchmarks or own.texts:
        benchmarks = Benchmarks(_texts(own), own.words, own.share, embedder=embedder)
    sieve = Sieve(own.exact, own.near, own.alike if embedder else 0.0, own.reward)
    with ExitStack() as stack:
        ask: Completer | None = None
        if own.judge.model:
            ledger = stack.enter_context(Ledger(own.out.with_suffix(".ledger")))
            ask = Ledgered(open_generator(own.judge), ledger)
        counts, hits = filter_file(own.data, own.out, sieve, benchmarks, embedder, ask)
    coverage = benchmarks.coverage if benchmarks else {}
    missing = [name for name in PUBLIC if name not in coverage] if own.benchmarks else []
    methods = list(benchmarks.methods) if benchmarks else []
    write_hits(own.out / "hits.html", hits, coverage, missing, methods)
    told = _statement(coverage, missing, hits)
    files = [(KEPT, own.out / KEPT)]
    write_card(own.out / "README.md", files, {"filter": counts}, own.licences, told)
    unseen = f"; NOT CHECKED, files missing: {', '.join(missing)}" if missing else ""
    return f"filter: {counts['out']} of {counts['in']} kept in {own.out}; {counts}{unseen}"


def card(folder: Path, overrides: list[str]) -> str:
    """Write the card of a folder of records; overrides: "licences.SOURCE=LICENCE"."""
    told = dict(one.removeprefix("licences.").split("=", 1) for one in overrides if "=" in one)
    tally = card_of_folder(folder, told)
    return f"{folder / 'README.md'}: {tally.total} records in {len(tally.files)} files"


def _statement(coverage: dict[str, Counter[str]], missing: list[str], hits: list[dict]) -> str:
    """What the card says of contamination."""
    if not coverage:
        return ""
    seen = ", ".join(f"{name} ({counts['items']:,} items)" for name, counts in coverage.items())
    sure = len({hit["record"] for hit in hits if hit["sure"]})
    suspected = sum(not hit["sure"] for hit in hits)
    lines = [f"Compared with {seen}: {sure} records dropped, {suspected} suspected (hits.html)."]
    if missing:
        lines.append(f"**Not compared, files missing:** {', '.join(missing)}.")
    return " ".join(lines)
