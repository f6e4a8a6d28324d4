"""Our tokenizer beside transformers' fast one: a 256k vocabulary, its compression and its speed.

    python benchmarks/tokenizer.py --train      # both vocabularies, once: some eight minutes
    python benchmarks/tokenizer.py              # compression and speed, from the trained ones

The text is that of FLYWRIGHT_DATA (default ../shared/data): books, textbooks, documentation, laws
and sentences in many languages, Java and C#. Every tenth document, chosen by a hash, is held
out and measured on. English is cut to `ENGLISH_BYTES`; a smaller language is repeated in the sample
up to `MOST_REPEATS` times, by the square root of how much smaller it is (SPEC 1.4: low-resource
languages are upsampled). The peer is a byte-level BPE trained by `tokenizers` on the same sample at
the same size, digits alone as in ours; in speed also our own vocabulary in transformers' files.

Timings are medians of interleaved repeats; only a machine that does nothing else gives numbers
worth keeping. Writes benchmarks/results/tokenizer.json.
"""

import argparse
import gzip
import io
import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median

import tokenizers
import transformers
import zstandard
from recording import row, write_result
from tokenizers import decoders, models, pre_tokenizers, trainers

from flywright.files import digest
from flywright.tokenizer import Tokenizer, train_tokenizer

DATA = Path(os.environ.get("FLYWRIGHT_DATA", "../shared/data"))
WORK = Path("runs/tokenizer-benchmark")
PEER = str(WORK / "peer.json")
SAME_NAME = "transformers fast, our vocabulary"
PEER_NAME = "transformers fast, byte-level BPE, same sample"
ENGLISH_BYTES, MOST_REPEATS = 60 << 20, 8
Texts = dict[str, list[str]]


def open_text(path: Path) -> io.TextIOBase:
    """A compressed file's text."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return io.TextIOWrapper(zstandard.open(path, "rb"), encoding="utf-8", newline="")


def lines_of(pattern: str, language: str) -> Iterator[tuple[str, str]]:
    """Documents of JSONL files; `language` is a name, or {key} for the row's own."""
    for path in sorted(DATA.glob(pattern)):
        with open_text(path) as stream:
            for line in stream:
                found = json.loads(line)
                yield language.format(**found), found["text"]


def paragraphs(pattern: str) -> Iterator[tuple[str, str]]:
    """XQuAD's contexts with their questions."""
    for path in sorted(DATA.glob(pattern)):
        with open_text(path) as stream:
            tree = json.load(stream)
        for article in tree["data"]:
            for part in article["paragraphs"]:
                asked = [question["question"] for question in part["qas"]]
                yield path.name.split(".")[1], "\n".join([part["context"], *asked])


def blocks(pattern: str, language: str, lines: int = 20) -> Iterator[tuple[str, str]]:
    """Files of one function or sentence a line, several together as a document."""
    for path in sorted(DATA.glob(pattern)):
        with open_text(path) as stream:
            rows = stream.read().split("\n")
        for start in range(0, len(rows), lines):
            yield language, "\n".join(rows[start : start + lines])


def corpus() -> Iterator[tuple[str, str]]:
    """(language, document) of everything there."""
    yield from lines_of("corpus_books_en/*.zst", "en")
    yield from lines_of("corpus_openstax/*.zst", "{lang}")
    yield from lines_of("corpus_usgov_web/*.zst", "en")
    yield from lines_of("corpus_technical_en/*.zst", "en")
    yield from lines_of("corpus_docs_multilingual/*.zst", "{lang}")
    yield from paragraphs("corpus_xquad/*.zst")
    yield from lines_of("corpus_udhr/*.gz", "udhr (528)")
    yield from lines_of("corpus_tatoeba_parallel/*.gz", "tatoeba (112)")
    yield from blocks("corpus_code_datasets/code_to_code/*.cs.gz", "code: C#")
    yield from blocks("corpus_code_datasets/code_to_code/*.java.gz", "code: Java")


def split() -> tuple[Texts, Texts]:
    """(sample, held out), documents by language; long ones in parts of 100,000 characters."""
    sample: Texts = defaultdict(list)
    heldout: Texts = defaultdict(list)
    for language, text in corpus():
        side = heldout if int(digest(text[:1000]), 16) % 10 == 0 else sample
        side[language] += [text[i : i + 100_000] for i in range(0, len(text), 100_000)]
    return sample, heldout


def size_of(texts: list[str]) -> int:
    """Bytes of UTF-8."""
    return sum(len(text.encode()) for text in texts)


def upsampled(sample: Texts) -> tuple[list[str], dict[str, list[int]]]:
    """The training texts, and for each language its bytes and how often they stand there."""
    texts: list[str] = []
    stated: dict[str, list[int]] = {}
    for language, documents in sorted(sample.items()):
        if language == "en":  # evenly from all English collections
            step = max(1, round(size_of(documents) / ENGLISH_BYTES))
            documents = documents[::step]
        size = size_of(documents)
        times = max(1, min(MOST_REPEATS, round((ENGLISH_BYTES / size) ** 0.5)))
        texts += documents * times
        stated[language] = [size, times]
    return texts, stated


def train(size: int) -> None:
    """Both tokenizers, into WORK, with what they were trained on and how long it took."""
    sample, _ = split()
    texts, stated = upsampled(sample)
    facts = {"vocab_size": size, "sample": stated, "bytes": size_of(texts)}
    print(facts, flush=True)
    WORK.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    train_tokenizer(texts, size).save(WORK / "ours")
    facts["seconds"] = round(time.perf_counter() - start)
    print("ours:", facts["seconds"], "s", flush=True)
    peer = tokenizers.Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    peer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    peer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    start = time.perf_counter()
    peer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    peer.save(PEER)
    facts["peer_seconds"] = round(time.perf_counter() - start)
    facts["peer_vocab_size"] = peer.get_vocab_size()
    print("peer:", facts["peer_seconds"], "s", flush=True)
    (WORK / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


def compression(heldout: Texts) -> list[dict]:
    """Bytes a token on held-out text, by language, beside the peer's vocabulary."""
    ours, peer = Tokenizer.load(WORK / "ours"), tokenizers.Tokenizer.from_file(PEER)
    rows = []
    for language, texts in sorted(heldout.items()):
        tokens = sum(map(len, ours.encode_batch(texts)))
        theirs = sum(len(one.ids) for one in peer.encode_batch_fast(texts))
        size = size_of(texts)
        what = f"compression, {language}, {size / 1e6:.2f} MB"
        rows.append(row(what, size / tokens, size / theirs, PEER_NAME, "bytes/token"))
    return rows


def speed_text(heldout: Texts) -> list[str]:
    """About 5 MB: English, other languages and code as 70 : 15 : 15, parts of 20,000 characters."""
    wanted = {"en": 3_500_000, "fr": 150_000, "es": 150_000, "ru": 150_000, "zh": 150_000}
    wanted |= {"ko": 130_000, "code: C#": 250_000, "code: Java": 200_000}
    texts = []
    for language, size in wanted.items():
        parts = [t[i : i + 20_000] for t in heldout[language] for i in range(0, len(t), 20_000)]
        step = max(1, size_of(parts) // size)
        texts += parts[::step]
    return texts


def agreeing(texts: list[str]) -> float:
    """Share of texts on which tokenizer.model, its parallel path and tokenizer.json agree.

    Those that hold a control token's text are left out: tokenizer.json reads it as the token.
    """
    texts = [text for text in texts if not re.search(r"<(s|/s|unk|pad|extra_id_\d)>", text)]
    ours = Tokenizer.load(WORK / "ours")
    fast = tokenizers.Tokenizer.from_file(str(WORK / "ours" / "tokenizer.json"))
    same = [
        ids == ours.encode(text) == fast.encode(text, add_special_tokens=False).ids
        for text, ids in zip(texts, ours.encode_batch(texts), strict=True)
    ]
    return sum(same) / len(same)


def rates(repeats: int) -> dict[str, float]:
    """MB/s of each encoder in this process, medians of interleaved repeats."""
    texts = speed_text(split()[1])
    ours = Tokenizer.load(WORK / "ours")
    same = transformers.AutoTokenizer.from_pretrained(WORK / "ours")
    peer = transformers.PreTrainedTokenizerFast(tokenizer_file=PEER)
    only = {"add_special_tokens": False, "return_attention_mask": False}
    encoders = {
        "ours": ours.encode_batch,
        SAME_NAME: lambda texts: same(texts, **only)["input_ids"],
        PEER_NAME: lambda texts: peer(texts, **only)["input_ids"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    for repeat in range(repeats + 1):
        for name, encode in encoders.items():
            start = time.perf_counter()
            encode(texts)
            if repeat:  # the first warms the peers' word caches
                seconds[name].append(time.perf_counter() - start)
    return {name: size_of(texts) / 1e6 / median(found) for name, found in seconds.items()}


def on_cores(count: int, repeats: int) -> dict[str, float]:
    """`rates` of a process that may use `count` cores."""
    done = subprocess.run(
        [sys.executable, __file__, "--rates", "--repeats", str(repeats)],
        env={**os.environ, "TOKENIZERS_PARALLELISM": "true"},
        preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count]),
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(repeats: int) -> None:
    """All rows into the result."""
    heldout = split()[1]
    rows = compression(heldout)
    found = {count: on_cores(count, repeats) for count in (1, 2)}
    for count, rate in found.items():
        for name in (SAME_NAME, PEER_NAME):
            rows.append(row(f"encode, {count} core(s)", rate["ours"], rate[name], name, "MB/s"))
    for name in (SAME_NAME, PEER_NAME):
        ours, peer = (found[2][who] / found[1][who] for who in ("ours", name))
        rows.append(row("encode, 2 cores over 1", ours, peer, name, "times"))
    write_result(
        "tokenizer",
        f"python benchmarks/tokenizer.py --repeats {repeats}",
        rows,
        versions={name: version(name) for name in ("sentencepiece", "tokenizers", "transformers")},
        trained=json.loads((WORK / "facts.json").read_text()),
        texts_on_which_model_json_and_batch_agree=agreeing(speed_text(heldout)),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", action="store_true", help="train both vocabularies first")
    parser.add_argument("--vocabulary", type=int, default=256_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rates", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rates:
        print(json.dumps(rates(given.repeats)))
    elif given.train:
        train(given.vocabulary)
    else:
        measure(given.repeats)
