"""`flywright data`: rules, copies and shards; killed, resumed and shared out, the same bytes."""

import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zstandard

from flywright.data import documents
from flywright.data.documents import DocumentFiles, parts, read
from flywright.data.prepare import prepare
from flywright.data.quality import RULES, Features, Quality, reason
from flywright.data.shards import WordEncoder, open_shard, write_shard
from flywright.errors import UserError
from flywright.progress import silent
from flywright.recipe.settings import PretrainSettings
from flywright.recipe.single import train_one
from flywright.settings import read_toml
from flywright.tokenizer import train_tokenizer

LIMITS = Quality()
GOOD = """The harbour of the old town lies on the north side of the island, and ships that come from
the mainland have to wait there with the tide. In the spring of that year a storm broke the outer
wall, so the council decided to build it again with larger stones.

Nobody had asked how to pay for them. A merchant offered to lend the money, but his terms were hard:
every boat would be charged for ten years. The fishermen refused, and the work began without him.
"""
JAPANESE = (
    "港は島の北側にあり、本土から来る船はそこで潮を待たなければならない。その年の春、嵐が外壁を壊したので、"
    "町の人々はもっと大きな石で建て直すことに決めた。しかし、その費用をどう払うかは誰も尋ねなかった。商人が金を貸すと"
    "申し出たが、条件は厳しかった。漁師たちは断り、仕事は彼なしで始まった。\n"
)
THAI = (
    "ท่าเรือของเมืองเก่าตั้งอยู่ทางทิศเหนือของเกาะ เรือที่มาจากแผ่นดินใหญ่ต้องรอน้ำขึ้นที่นั่น "
    "ในฤดูใบไม้ผลิปีนั้น พายุพัดกำแพงด้านนอกพัง สภาเมืองจึงตัดสินใจสร้างใหม่ด้วยหินก้อนใหญ่กว่าเดิม "
)
CODE = "def add(a, b):\n    if not a:\n        return {b: 1}\n    return {a: b}\n"


def prose(seed: int, words: int = 120) -> str:
    """A text unlike any other, that every rule lets pass."""
    rng = random.Random(seed)
    made = ["the", "and"]
    made += ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(3, 8))) for _ in range(words)]
    lines = [" ".join(made[i : i + 12]).capitalize() + "." for i in range(0, len(made), 12)]
    return "\n".join(lines)


def judged(text: str, rules: str = "web", language: str = "en", sides: tuple[str, ...] = ()):
    return reason(Features(text, language, sides), rules, LIMITS)


TRIPS = {
    "too few words": "A good short text, and that is all of it. Yes. No.",
    "too many words": GOOD * 1600,
    "word length": " ".join(f"{word}xxxxxxxx" for word in GOOD.split()) + " the to. And. So.",
    "symbols": GOOD.replace(" ", " # ", 60),
    "bullets": "\n".join(f"- {line}" for line in prose(1).split("\n")),
    "ellipses": "\n".join(line[:-1] + "..." for line in prose(2, 500).split("\n"))
    + " Yes. No. So.",
    "no stop words": re.sub(r"\b(the|be|to|of|and|that|have|with)\b", "xyz", GOOD, flags=re.I),
    "few letters": re.sub(r"\b([b-s]\w+)", lambda m: "1" * len(m[0]), GOOD),
    "duplicate lines": GOOD + "A line that is here again.\n" * 9,
    "duplicate paragraphs": GOOD + "\n\n".join(["\nA line,\nand one", *["One.\nTwo."] * 9]),
    "one phrase": "".join(f"{word} Winter Sale Offer. " for word in prose(3).split()),
    "repeated phrases": GOOD + " ".join(GOOD.split()[:20]) + " so. " + prose(4, 20),
    "lorem ipsum": GOOD + "Lorem Ipsum dolor.",
    "curly brace": GOOD + "{",
    "javascript": GOOD + "Please turn JavaScript on.",
    "few sentences": GOOD.replace(".", ",").replace("?", ","),
    "unended lines": "It is. It was. It will be. And so\n" + prose(5, 200).replace(".", ""),
}


@pytest.mark.parametrize("name", TRIPS)
def test_each_rule_trips_on_its_own_text_and_spares_a_good_one(name):
    rule = RULES["web"][name]
    assert rule(Features(TRIPS[name], "en"), LIMITS)
    assert not rule(Features(GOOD, "en"), LIMITS)
    assert judged(TRIPS[name]) is not None


def test_every_web_rule_has_a_text_and_what_is_empty_goes():
    assert set(TRIPS) == set(RULES["web"])
    assert judged(GOOD) is None and judged(" \n ") == "empty"


def test_the_code_and_pair_rules():
    assert judged(CODE) and judged(CODE, "code") is None
    assert judged("x = 1\n" + "y" * 1001, "code") == "long lines"
    assert judged("{[(<+-*/=>)]}\n" * 5, "code") == "few letters"
    assert judged("a\nb", "pairs", "de", ("Ein Hund.", "A dog.")) is None
    assert judged("a\na", "pairs", "de", ("A dog.", "A dog.")) == "not translated"
    assert judged("a", "pairs", "de", ("", "A dog.")) == "not translated"
    assert judged("a\nb", "pairs", "de", ("Ja.", "No " * 30)) == "unequal sides"


def test_languages_without_spaces_are_judged_by_characters():
    assert judged(JAPANESE, language="ja") is None
    assert judged(JAPANESE + JAPANESE[:60], language="ja") == "repeated phrases"
    assert judged(JAPANESE[:40] + "。い。う。", language="ja") == "too few words"
    assert judged(THAI * 2, language="th", rules="prose") == "repeated phrases"
    assert judged(THAI, language="th") is None  # no full stops, no stop words


def test_stop_words_are_asked_for_in_english_only():
    text = TRIPS["no stop words"]
    assert judged(text) == "no stop words" and judged(text, language="de") is None


def test_shares_are_those_of_a_slow_count():
    """The arrays against dictionaries of words: top n-gram, and what repeats."""
    for seed in range(20):
        rng = random.Random(seed)
        words = rng.choices(["a", "bb", "ccc", "dddd", "eeeee"], k=rng.randint(10, 60))
        text, spaced = Features(" ".join(words), "en"), " ".join(words)
        for n in (2, 3, 5):
            grams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
            most = max((c * len(g) for g, c in Counter(grams).items() if c > 1), default=0)
            assert text.top(n, 0.0) == pytest.approx(most / len(spaced))
            again = {i + k for i, g in enumerate(grams) if g in grams[:i] for k in range(n)}
            share = sum(len(words[i]) for i in again) / sum(map(len, words))
            assert text.repeated(n) == pytest.approx(share)


def test_a_long_phrase_that_is_there_once_is_no_top_phrase():
    text = Features("a b a b " + "x" * 40 + " " + "y" * 40, "en")
    assert text.top(2, 0.0) == pytest.approx(6 / 89)


def test_cuts_anywhere_lose_and_double_no_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * n}) + "\n" for n in range(1, 20)))
    files = DocumentFiles(path=str(path), source="s", language="en")
    for size in range(1, 60):
        found = [text.text for part in parts(str(path), size) for text in read(files, part)]
        assert [len(text) for text in found] == [*range(1, 20)]


def test_real_texts_pass():
    data = Path(os.environ.get("FLYWRIGHT_DATA", "../shared/data"))
    if not (data / "corpus_wiki_web_samples").is_dir():
        pytest.skip("needs the corpus_* folders in FLYWRIGHT_DATA")
    for path, language, rules, least in (
        ("corpus_wiki_web_samples/c4_demo.jsonl.gz", "en", "web", 0.8),
        ("corpus_docs_multilingual/react_docs_zh.jsonl.zst", "zh", "prose", 0.4),
        ("corpus_openstax/openstax_pl.jsonl.zst", "pl", "prose", 0.9),
    ):
        files = DocumentFiles(path=str(data / path), source="s", language=language, rules=rules)
        found = [t for part in parts(files.path) for t in read(files, part)]
        passed = sum(reason(Features(t.text, t.language), rules, LIMITS) is None for t in found)
        assert passed >= least * len(found)


# ---------------------------------------------------------------- the whole way


def near_copy(text: str) -> str:
    """The text with one word of a hundred or so changed."""
    words = text.split(" ")
    return " ".join([*words[:-1], "otherwise."])


@pytest.fixture
def corpus(tmp_path) -> tuple[DocumentFiles, ...]:
    """Several files of every kind, with copies across them."""
    texts = [prose(n) for n in range(120)]
    web = [*texts[:40], texts[3].upper(), near_copy(texts[5]), "too short", *texts[40:80]]
    rows = [{"text": text, "source": "web", "language": "en"} for text in web]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(lines[:50]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("".join(lines[50:70]).encode()))
    frames = [zstandard.compress("".join(part).encode()) for part in (lines[70:75], lines[75:])]
    (folder / "c.jsonl.zst").write_bytes(b"".join(frames))
    pairs = [{"lang": "de", "text": f"Hund {n}.", "eng": f"Dog {n}."} for n in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (tmp_path / "books" / "old").mkdir(parents=True)
    for n, text in enumerate([*texts[100:], texts[7]]):
        (tmp_path / "books" / "old" / f"{n:02}.txt").write_text(text)
    return (
        DocumentFiles(path=str(folder)),
        DocumentFiles(
            path=str(tmp_path / "*.jsonl"), source="pairs", language="{lang}", translation="eng"
        ),
        DocumentFiles(path=str(tmp_path / "books"), source="books", language="en", rules="prose"),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tokenizer's folder."""
    made = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([prose(n) for n in range(20)] + [JAPANESE, GOOD], 400).save(made)
    return made


def shards(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.npy"))}


def test_copies_go_the_first_stays_and_the_order_is_kept(corpus, folder, tmp_path, tokenizer):
    counts = prepare(corpus, folder, tmp_path / "out", LIMITS, True, 1, silent, 3000)
    web, books, pairs = counts["en.web"], counts["en.books"], counts["other.pairs"]
    assert (web["read"], web["kept"]) == (83, 80)
    assert (web["duplicate"], web["near duplicate"], web["few sentences"]) == (1, 1, 1)
    assert (books["read"], books["duplicate"], books["kept"]) == (21, 1, 20)
    assert pairs["kept"] == 20
    found = shards(tmp_path / "out")
    tokenizer = tokenizer.load(folder)
    write_shard(tmp_path / "expected.npy", [prose(n) for n in range(80)], tokenizer)
    assert found["en.web.npy"] == (tmp_path / "expected.npy").read_bytes()
    assert set(found) == {"en.web.npy", "en.books.npy", "other.pairs.npy"}
    texts = tokenizer.decode(open_shard(tmp_path / "out" / "other.pairs.npy").tolist())
    directions = Counter(re.findall(r"(Hund|Dog) \d+\.\n(?:Hund|Dog)", texts))
    assert directions["Hund"] >= 3 and directions["Dog"] >= 3  # both sides come first
    counts = prepare(corpus, folder, tmp_path / "exact", LIMITS, False, 1, silent)
    assert counts["en.web"]["kept"] == 81 and not (tmp_path / "exact" / "work").exists()


def test_the_same_bytes_however_the_work_is_shared_out(corpus, folder, tmp_path):
    counts = []
    for name, workers, size in (("one", 1, 1 << 20), ("cut", 1, 1000), ("two", 2, 5000)):
        counts.append(prepare(corpus, folder, tmp_path / name, LIMITS, True, workers, silent, size))
        assert shards(tmp_path / name) == shards(tmp_path / "one")
    assert counts[0] == counts[1] == counts[2]


RUN = """
import sys
from pathlib import Path
from flywright.data.documents import DocumentFiles
from flywright.data.prepare import prepare
from flywright.data.quality import Quality

if __name__ == "__main__":
    files, tokenizer, out, size, workers = sys.argv[1:]
    tick = lambda done, total, note: print(note, done, flush=True)
    one = DocumentFiles(path=files, source="web", language="en")
    paths = Path(tokenizer), Path(out)
    prepare([one], *paths, Quality(), True, int(workers), tick, int(size))
    status = Path("/proc/self/status").read_text().split()
    print("peak", status[status.index("VmHWM:") + 1])
"""


@pytest.mark.parametrize("moment", ["judged 3", "tokens 4"])
def test_killed_anywhere_and_gone_on_with_the_same_bytes(moment, folder, tmp_path):
    lines = [json.dumps({"text": prose(n)}) + "\n" for n in range(400)]
    (tmp_path / "all.jsonl").write_text("".join(lines))
    (tmp_path / "run.py").write_text(RUN)
    files, out = str(tmp_path / "all.jsonl"), tmp_path / "out"
    whole = tmp_path / "whole"
    one = DocumentFiles(path=files, source="web", language="en")
    prepare([one], folder, whole, LIMITS, True, 1, silent, 20_000)
    command = [sys.executable, str(tmp_path / "run.py"), files, str(folder), str(out), "20000", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith(moment) for line in process.stdout)
        os.kill(process.pid, signal.SIGKILL)
    assert (out / "work").is_dir() and not (out / "counts.json").exists()
    time.sleep(0.5)  # the workers follow their parent
    begun = len(list((out / "work" / moment.split()[0]).iterdir()))
    ticks: list[tuple[str, int]] = []
    prepare(
        [one], folder, out, LIMITS, True, 1, lambda n, _all, note: ticks.append((note, n)), 20_000
    )
    first = next(n for note, n in ticks if note == moment.split()[0])
    assert first >= int(moment.split()[1]) and begun >= first  # what was done was not done again
    assert shards(out) == shards(whole)


def test_other_files_than_those_it_began_with_are_refused(corpus, folder, tmp_path):
    def stop(done: int, _total: int, note: str) -> None:
        if note == "tokens":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(corpus, folder, tmp_path / "out", LIMITS, True, 1, stop)
    path = next(Path(corpus[0].path).glob("*.jsonl"))
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError, match="files or tokenizer have changed"):
        prepare(corpus, folder, tmp_path / "out", LIMITS, True, 1, silent)


def test_memory_does_not_grow_with_the_input(folder, tmp_path):
    """Ten times the text in parts of the same size: no more than a few MB more at the peak."""
    rng, peaks = random.Random(0), []
    words = prose(0, 3000).split()
    (tmp_path / "run.py").write_text(RUN)
    for count in (300, 3000):
        path, out = tmp_path / f"{count}.jsonl", tmp_path / f"out{count}"
        with path.open("w") as stream:
            for _ in range(count):
                lines = (" ".join(rng.choices(words, k=10)) + "." for _ in range(100))
                stream.write(json.dumps({"text": "\n".join(["The and.", *lines])}) + "\n")
        command = [sys.executable, str(tmp_path / "run.py"), str(path), str(folder), str(out)]
        command += ["500000", "1"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]) * 1024)
    tokens = (out / "en.web.npy").stat().st_size
    assert tokens > 9_000_000 and peaks[1] - peaks[0] < tokens / 2


# ---------------------------------------------------------------- bad input


def one_text(path: Path, **settings: str) -> list[documents.Text]:
    files = DocumentFiles(path=str(path), **{"source": "s", "language": "en", **settings})
    return [text for part in parts(str(path), 60) for text in read(files, part)]


def test_bad_lines_are_named_with_file_and_line(tmp_path):
    path = tmp_path / "a.jsonl"
    good = json.dumps({"text": "a fine text"}) + "\n"
    for bad, why in {
        '{"text": ': "not valid JSON",
        '{"txt": "x"}': "no text in field 'text'",
        '{"text": 3}': "no text in field 'text'",
        '"x"': "not an object",
    }.items():
        path.write_text(good * 7 + "\n" + bad + "\n" + good)
        with pytest.raises(UserError, match=rf"a\.jsonl:9: {why}"):
            one_text(path)
    path.write_text(good)
    with pytest.raises(UserError, match="no text in field 'lang'"):
        one_text(path, language="{lang}")
    with pytest.raises(UserError, match="cannot name a shard"):
        one_text(path, source="../x")


def test_damaged_and_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none: no such file"):
        one_text(tmp_path / "none")
    packed = gzip.compress(json.dumps({"text": "x" * 1000}).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(packed[:-9])
    with pytest.raises(UserError, match=r"a\.jsonl\.gz: damaged"):
        one_text(tmp_path / "a.jsonl.gz")
    (tmp_path / "b.jsonl.zst").write_bytes(b"not zstd at all")
    with pytest.raises(UserError, match=r"b\.jsonl\.zst: damaged"):
        one_text(tmp_path / "b.jsonl.zst")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"c\.txt: .*utf-8"):
        one_text(tmp_path / "c.txt")


def test_parquet_without_pyarrow_is_a_clear_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"flywright\[data\]"):
        one_text(tmp_path / "a.parquet")


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    texts = [prose(n) for n in range(5)]
    parquet.write_table(pyarrow.table({"text": texts, "n": [1] * 5}), path)
    assert [text.text for text in one_text(path)] == texts
    with pytest.raises(UserError, match="no column 'body'"):
        one_text(path, field="body")
    parquet.write_table(pyarrow.table({"text": [*texts, None]}), path)
    with pytest.raises(UserError, match="row 6: no text in field 'text'"):
        one_text(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"a\.parquet: .*"):
        one_text(path)


# ---------------------------------------------------------------- words and shards


def test_remembered_words_give_the_tokenizers_own_ids(folder, tokenizer):
    tokenizer = tokenizer.load(folder)
    encoder = WordEncoder(tokenizer)
    assert encoder._apart
    texts = [
        GOOD,
        JAPANESE,
        CODE,
        "  two  spaces \n\n\n",
        " ",
        "<extra_id_1> </s>",
        "naïve 12.5€",
        "",
    ]
    for text in [*texts, *texts]:
        expected = [*tokenizer.opening, *tokenizer.encode(text), tokenizer.eos_id]
        assert encoder.document(text).tolist() == expected
    encoder.clear()
    encoder._MOST_WORDS = 10
    assert encoder.document(GOOD).tolist()[:-1] == tokenizer.encode(GOOD) and len(encoder) <= 10


def test_a_shard_is_what_numpy_would_save(tmp_path, tokenizer):
    write_shard(tmp_path / "a.npy", [GOOD, JAPANESE], tokenizer)
    np.save(tmp_path / "b.npy", np.array(open_shard(tmp_path / "a.npy")))
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    write_shard(tmp_path / "none.npy", [], tokenizer)
    assert len(open_shard(tmp_path / "none.npy")) == 0


# ---------------------------------------------------------------- the recipe's shares


def test_the_reports_blend_names_every_language_and_sums_to_70_15_15():
    recipe = read_toml(Path("recipes/nemotron-4-15b.toml"))
    train = {"batch_size": 1, "learning_rate": 1e-3}
    settings = PretrainSettings.model_validate(
        {"train": train, "blend": recipe["pretrain"]["blend"]}
    )
    ((_, weights),) = settings.phases(dict.fromkeys(settings.blend, 1000))
    groups: dict[str, list[float]] = {}
    for name, weight in weights.items():
        groups.setdefault(name.partition(".")[0], []).append(weight)
    sums = {group: round(sum(found), 9) for group, found in groups.items()}
    assert sums == {"en": 0.7, "other": 0.15, "code": 0.15} and round(sum(weights.values()), 9) == 1
    assert len(groups["other"]) == 53 + 1 and len(groups["code"]) == 43  # and the parallel texts
    other = read_toml(Path("recipes/nemotron-4-340b.toml"))["pretrain"]["blend"]
    assert other == {group: pytest.approx(total) for group, total in sums.items()}


def test_a_source_can_have_a_share_of_its_own():
    train = {"batch_size": 1, "learning_rate": 1e-3}
    blend = {"en": 0.6, "other.de": 0.3, "other.fr": 0.1}
    settings = PretrainSettings.model_validate({"train": train, "blend": blend})
    tokens = {"en.web": 30, "en.books": 10, "other.de": 5, "other.fr": 500, "other.it": 7}
    expected = {"en.web": 0.45, "en.books": 0.15, "other.de": 0.3, "other.fr": 0.1}
    for order in ({"other": 0.2, "other.de": 0.1}, {"other.de": 0.1, "other": 0.2}):
        beside = PretrainSettings.model_validate({"train": train, "blend": order})
        ((_, found),) = beside.phases({"other.de": 900, "other.fr": 50, "other.it": 50})
        assert found == pytest.approx({"other.de": 0.1, "other.fr": 0.1, "other.it": 0.1})
    ((_, weights),) = settings.phases(tokens)
    assert weights == pytest.approx(expected)
    with pytest.raises(UserError, match=r"no group 'other\.de'"):
        settings.phases({"en.web": 30})


# ---------------------------------------------------------------- the verb


def test_the_verb_writes_shards_that_pretraining_takes(folder, tmp_path, capsys):
    with (tmp_path / "a.jsonl").open("w") as stream:
        stream.writelines(json.dumps({"text": prose(n)}) + "\n" for n in range(30))
    settings = tmp_path / "data.toml"
    settings.write_text(
        f'out = "{tmp_path}/shards"\ntokenizer = "{folder}"\nworkers = 1\n'
        f'[[collections]]\npath = "{tmp_path}/a.jsonl"\nsource = "web"\nlanguage = "en"\n'
    )
    assert train_one("data", settings, []) == f"data: done, {tmp_path}/shards"
    assert "en.web: 30 read, 30 kept" in capsys.readouterr().out
    assert train_one("data", settings, ["workers=2"]).startswith("data: done")  # and at once
    with pytest.raises(UserError, match="another step's work"):
        train_one("data", settings, ["near=false"])
    (tmp_path / "pretrain.toml").write_text(
        f'out = "{tmp_path}/base"\ndata = "{tmp_path}/shards"\ntokenizer = "{folder}"\n'
        "window = 33\nblend = { en = 1.0 }\n[model]\nvocab_size = 400\nhidden_size = 16\n"
        "layers = 1\nheads = 2\nkv_heads = 1\nhead_dim = 8\nffn_size = 32\ncontext_length = 64\n"
        "[train]\nlearning_rate = 1e-3\nbatch_size = 4\nsamples = 8\n"
    )
    assert train_one("pretrain", tmp_path / "pretrain.toml", []).startswith("pretrain: done")
    (tmp_path / "shards" / "tokenizer.hash").write_text("another")
    with pytest.raises(UserError, match="made with another tokenizer"):
        train_one("pretrain", tmp_path / "pretrain.toml", [])
    with (tmp_path / "a.jsonl").open("a") as stream:
        stream.write(json.dumps({"text": prose(99)}) + "\n")
    with pytest.raises(UserError, match="have changed since"):
        train_one("data", settings, [])
