"""Pretraining data: `flywright data` beside datatrove on the same texts, whole and in parts.

    python -m venv VENV && VENV/bin/pip install -r benchmarks/requirements.txt
    python benchmarks/data.py --peer VENV/bin/python [--megabytes 4] [--repeats 3]

The sample: English textbooks and web pages of FLYWRIGHT_DATA (default ../shared/data), as plain
JSONL in two files, so that the peer has a task for each process. Both sides judge by Gopher's and
C4's rules, find near copies with 14 bands of 8 rows over 5-grams, and encode with one 32k
vocabulary, trained on the sample (the peer from its tokenizer.json). Parts are timed in one process
by its processor time over all texts; the chain in two processes by the clock, from JSONL files to
one file of tokens. Medians of interleaved repeats. Writes benchmarks/results/data.json.

The rules are of one kind, not the same: C4's deletes lines there, where ours judges by their share.
"""

import argparse
import gzip
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

os.environ["RAYON_NUM_THREADS"] = "1"

import zstandard

from flywright.data import dedup
from flywright.data.documents import DocumentFiles
from flywright.data.prepare import prepare
from flywright.data.quality import Features, Quality, reason
from flywright.data.shards import WordEncoder
from flywright.files import write_json
from flywright.progress import silent
from flywright.tokenizer import Tokenizer, train_tokenizer

DATA = Path(os.environ.get("FLYWRIGHT_DATA", "../shared/data"))
WORK = Path("runs/data-benchmark")
RESULT = Path(__file__).parent / "results" / "data.json"
TOKENIZER, SAMPLE = WORK / "tokenizer", WORK / "sample"
PROCESSES = 2


def make_sample(megabytes: float) -> None:
    """A sample of web pages and textbook modules, in two files."""
    with gzip.open(DATA / "corpus_wiki_web_samples/c4_demo.jsonl.gz", "rt") as stream:
        texts = [json.loads(line)["text"] for line in stream]
    with zstandard.open(DATA / "corpus_openstax/openstax_en.jsonl.zst", "rb") as packed:
        found = [json.loads(line)["text"] for line in io.TextIOWrapper(packed, "utf-8")]
    texts += found[:: max(1, round(sum(map(len, found)) / (megabytes * 1e6)))]
    shutil.rmtree(WORK, ignore_errors=True)
    SAMPLE.mkdir(parents=True)
    for half in range(PROCESSES):
        rows = [json.dumps({"text": text}) + "\n" for text in texts[half::PROCESSES]]
        (SAMPLE / f"{half}.jsonl").write_text("".join(rows))
    train_tokenizer(texts[::3], 32_000).save(TOKENIZER)


def sample_texts() -> list[str]:
    """The sample's texts."""
    paths = sorted(SAMPLE.glob("*.jsonl"))
    return [json.loads(line)["text"] for path in paths for line in path.open()]


def parts() -> dict[str, float]:
    """Seconds of processor time for each part, over all of the sample's texts."""
    texts, limits, tokenizer = sample_texts(), Quality(), Tokenizer.load(TOKENIZER)
    reason(Features(texts[0], "en"), "web", limits)  # makes the tables
    encoder = WordEncoder(tokenizer)
    seconds = {}
    started = time.process_time()
    kept = sum(reason(Features(text, "en"), "web", limits) is None for text in texts)
    seconds["rules"] = time.process_time() - started
    started = time.process_time()
    dedup.bands([dedup.shingles(Features(text, "en")) for text in texts])
    seconds["signatures"] = time.process_time() - started
    started = time.process_time()
    for text in texts:
        encoder.document(text)
    seconds["tokens"] = time.process_time() - started
    started = time.process_time()
    for text in texts:
        tokenizer.encode(text)
    seconds["tokens, without remembered words"] = time.process_time() - started
    return {**seconds, "kept": kept}


def chain() -> dict[str, float]:
    """Seconds from files to shards."""
    out = WORK / "ours"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    files = DocumentFiles(path=str(SAMPLE), source="sample", language="en")
    started = time.perf_counter()
    counts = prepare([files], TOKENIZER, out, Quality(), True, PROCESSES, silent)
    return {"seconds": time.perf_counter() - started, **counts["en.sample"]}


def asked(command: list[str]) -> dict[str, float]:
    """The JSON that a command prints last."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(peer: str, repeats: int) -> None:
    """All rows into RESULT."""
    size = sum(len(text.encode()) for text in sample_texts()) / 1e6
    theirs = [peer, str(Path(__file__).with_name("data_peer.py"))]
    paths = [str(SAMPLE), str(TOKENIZER / "tokenizer.json"), str((WORK / "peer").absolute())]
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(repeats):
        for what in ("parts", "chain"):
            ours = asked([sys.executable, __file__, "--only", what])
            found.setdefault((what, "ours"), []).append(ours)
            found.setdefault((what, "peer"), []).append(asked([*theirs, what, *paths]))
            print(what, ours, found[what, "peer"][-1], flush=True)

    def rate(what: str, who: str, name: str) -> float:
        return size / median(one[name] for one in found[what, who])

    def row(what: str, ours: float, other: float, name: str) -> dict:
        rates = {"ours": round(ours, 2), "peer": round(other, 2), "ratio": round(ours / other, 2)}
        print(f"{what:<44} {ours:8.2f}   {name:<34} {other:8.2f} MB/s  x{ours / other:.2f}")
        return {"what": what, **rates, "peer_name": name, "unit": "MB/s of input"}

    version = [peer, "-c", "import importlib.metadata as m; print(m.version('datatrove'))"]
    name = "datatrove " + subprocess.run(version, stdout=subprocess.PIPE, text=True).stdout.strip()
    rows = [
        row("chain, 2 processes", *(rate("chain", w, "seconds") for w in ("ours", "peer")), name)
    ]
    for part, what in {
        "rules": "quality rules, 1 process",
        "signatures": "MinHash signatures, 1 process",
        "tokens": "tokenize, 1 process",
    }.items():
        rows.append(row(what, *(rate("parts", who, part) for who in ("ours", "peer")), name))
    slow = rate("parts", "ours", "tokens, without remembered words")
    rows.append(
        row("tokenize, 1 process", rate("parts", "ours", "tokens"), slow, "ours, each text whole")
    )
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "command": f"python benchmarks/data.py --peer PYTHON --repeats {repeats}",
        "sample": {"megabytes": round(size, 2), "documents": len(sample_texts())},
        "kept_by_the_rules": {who: found["parts", who][-1]["kept"] for who in ("ours", "peer")},
        "tokens": {who: found["chain", who][-1]["tokens"] for who in ("ours", "peer")},
        "rows": rows,
    }
    write_json(RESULT, result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", default="python", help="a Python with requirements.txt installed")
    parser.add_argument("--megabytes", type=float, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("parts", "chain"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(parts() if given.only == "parts" else chain()))
    else:
        make_sample(given.megabytes)
        measure(given.peer, given.repeats)
