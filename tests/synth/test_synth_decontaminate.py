"""Planted copies of benchmark items, exact, reworded and translated: what each method finds, and
what it takes for one that is none. The numbers are printed (pytest -s)."""

import asyncio
import gzip
import json
import os
import random
import re
import tomllib
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from flywright.ask import Scripted
from flywright.errors import UserError
from flywright.synth.decontaminate import Benchmarks, confirmed, numbers
from flywright.synth.embeddings import StaticTable, near_vectors, unit

HERE = Path(__file__).parent
ITEMS = tomllib.loads((HERE / "planted_items.toml").read_text("utf-8"))["item"]
HELD_OUT = tomllib.loads((HERE / "planted_heldout.toml").read_text("utf-8"))["item"]
LANGUAGES = ("de", "es", "zh")
DATA = Path(os.environ.get("FLYWRIGHT_DATA", "../shared/data"))


@pytest.fixture(scope="module")
def bench():
    return Benchmarks([("own", item["text"]) for item in ITEMS])


def found(bench, texts, truth=None):
    """(sure, sure or suspected, by method) shares of texts whose own item is named."""
    sure = seen = 0
    methods: dict[str, int] = {}
    for number, text in enumerate(texts):
        hits = [h for h in bench.hits("r", [text]) if truth is None or h.item == truth[number]]
        sure += any(hit.sure for hit in hits)
        seen += bool(hits)
        for hit in hits:
            methods[hit.method] = methods.get(hit.method, 0) + 1
    return sure / len(texts), seen / len(texts), methods


def told(name, result):
    print(f"{name:24} sure {result[0]:6.1%}  sure or suspected {result[1]:6.1%}  {result[2]}")
    return result


@pytest.mark.parametrize("items", [ITEMS, HELD_OUT], ids=["tuning", "held-out"])
def test_planted_copies_are_found_and_lookalikes_are_not(items):
    truth = [item["text"] for item in items]
    bench = Benchmarks([("own", item["text"]) for item in [*ITEMS, *HELD_OUT]])
    exact = [f"Please help me. {text} Thank you!" for text in truth]
    assert told("exact", found(bench, exact, truth))[0] == 1.0
    sure, seen, _ = told("reworded", found(bench, [i["reworded"] for i in items], truth))
    assert sure >= 0.5 and seen == 1.0
    for language in LANGUAGES:
        plants = [item[language] for item in items]
        _, seen, _ = told(f"translated: {language}", found(bench, plants, truth))
        assert seen >= 0.6  # some have neither numbers nor names enough
    clean = [item["lookalike"] for item in items]
    sure, seen, _ = told("clean lookalikes", found(bench, clean))
    assert sure == 0.0 and seen <= 0.15


def test_a_copy_within_a_long_text_is_found(bench):
    filler = " ".join(f"filler{n}" for n in range(300))
    for kind in ("reworded", "de"):
        hits = bench.hits("r", ["hello", f"{filler} {ITEMS[5][kind]} {filler}"])
        assert hits and all(hit.item == ITEMS[5]["text"] for hit in hits), kind
        assert ITEMS[5][kind].split()[12] in hits[0].text


def test_what_no_method_can_check_is_counted():
    bench = Benchmarks([("a", "Why"), ("a", ITEMS[0]["text"]), ("b", ITEMS[3]["text"])])
    assert bench.coverage["a"] == {"items": 2, "words": 1, "rewording": 1, "translation": 1}
    assert bench.coverage["b"] == {"items": 1, "words": 1, "rewording": 1, "translation": 0}


def test_numbers_are_read_in_any_writing():
    said = "1,250 or 1.250 or 1 250; 2.50 and 2,5; three, drei, 三 and 007, 5²"
    plain = [number for number, _ in numbers(said)]
    assert plain == ["1250", "1250", "1250", "2.5", "2.5", "3", "3", "3", "7", "5"]
    assert [digits for _, digits in numbers("three 4")] == [False, True]


def test_other_numbers_or_another_name_are_never_sure(bench):
    for old, new in (("14 jars", "17 jars"), ("longest_plateau", "widest_gap")):
        item = next(item for item in ITEMS if old in item["text"])
        hits = bench.hits("r", [item["reworded"].replace(old, new)])
        assert not any(hit.sure for hit in hits if hit.method != "words"), old


def test_a_model_decides_about_suspects(bench):
    asked = []

    def reply(prompt, sampling):
        asked.append(prompt.last)
        same = any(i["text"] in prompt.last and i["reworded"] in prompt.last for i in ITEMS)
        return "Yes." if same else "No"

    texts = [item[kind] for item in ITEMS for kind in ("reworded", "lookalike")]
    suspects = [h for text in texts for h in bench.hits("r", [text]) if not h.sure]
    checked = asyncio.run(confirmed(Scripted(reply, model="judge"), suspects))
    assert len(asked) == 2 * len(suspects) and len(suspects) > 2
    lookalikes = {item["lookalike"] for item in ITEMS}
    assert any(hit.text in lookalikes for hit in checked)
    assert all(hit.sure == (hit.text not in lookalikes) for hit in checked)
    assert all("asked judge" in hit.method for hit in checked)


def table(folder, groups):
    """A table of vectors in which the words of a group have one vector."""
    vocabulary = {"[UNK]": 0} | {
        word: number for number, word in enumerate((w for g in groups for w in g), start=1)
    }
    rows = np.random.default_rng(0).normal(size=(len(groups) + 1, 16)).astype(np.float32)
    rows[0] = 0
    of = [0, *(n for n, group in enumerate(groups, start=1) for _ in group)]
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({"embeddings": rows[of]}, folder / "model.safetensors")
    return StaticTable(folder)


def test_vectors_find_what_the_table_calls_alike(tmp_path):
    groups = [("grasshopper", "Heuschrecke"), ("organ", "Organ"), ("sound", "Schall"), ("river",)]
    embedder = table(tmp_path / "table", groups)
    bench = Benchmarks([("own", "organ sound grasshopper")], methods=(), embedder=embedder)
    (hit,) = bench.hits("r", ["Schall Organ Heuschrecke"])
    assert hit.sure and hit.method == "embedding" and hit.share == pytest.approx(1)
    assert bench.hits("r", ["river"]) == [] == bench.hits("r", ["unknown"])
    with pytest.raises(UserError, match="not a folder with tokenizer"):
        StaticTable(tmp_path)


def test_near_vectors_agree_with_comparing_all_pairs(monkeypatch):
    monkeypatch.setattr("flywright.synth.embeddings.BLOCK", 7)
    rows = unit(np.random.default_rng(3).normal(size=(60, 4)))
    copies, stays = near_vectors(rows, 0.9), []
    for place, row in enumerate(rows):
        alike = [(float(row @ rows[other]), other) for other in stays]
        if alike and max(alike)[0] >= 0.9:
            assert copies[place][0] == max(alike)[1]
        else:
            assert place not in copies
            stays.append(place)
    assert 5 < len(copies) < 55


def lines(path):
    if not path.exists():
        pytest.skip(f"{path} is not there (FLYWRIGHT_DATA names the folder)")
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as stream:
        return list(stream)


SAME = {
    **{"buys": "purchases", "sells": "is selling", "students": "pupils", "children": "kids"},
    **{"money": "cash", "earns": "makes", "each": "every", "friend": "pal", "large": "big"},
    **{"needs": "requires", "house": "home", "also": "too", "total": "sum", "twice": "two times"},
    **{"Write": "Compose", "write": "compose", "function": "routine", "response": "reply"},
}


def reworded(text):
    """The last sentence first, other words for some, other names for people, one word in eight
    left out (never a number)."""
    rng = random.Random(text)
    *others, last = re.split(r"(?<=[.?!])\s+", text.strip())
    said = re.sub(
        r"[A-Za-z]+", lambda found: SAME.get(found[0], found[0]), " ".join([last, *others])
    )
    for new, name in zip(("Bertil", "Ottoline"), sorted(set(NAME.findall(text))), strict=False):
        said = said.replace(name, new)
    words = said.split(" ")
    return " ".join(w for w in words if rng.random() > 0.12 or any(c.isdigit() for c in w))


NAME = re.compile(r"(?<=[.a-z,] )[A-Z][a-z]{3,}")


@pytest.mark.slow
@pytest.mark.parametrize("half", ["tuning", "held-out"])
def test_copies_of_real_benchmark_items(half):
    """Real items, parted by hash: what may be chosen by the tuning half is measured on the other.

    Exact and (by rule) reworded copies of GSM8K, IFEval and HumanEval, MBPP as people edited it,
    and MGSM, which is GSM8K's first 250 in ten languages. GSM8K's training split, which is of the
    same kind and no copy, and C4's pages measure what is taken for an item wrongly.
    """

    def mine(text):
        return (sha256(text.encode()).digest()[0] % 2 == 0) == (half == "tuning")

    def rows(name, field):
        return [json.loads(line)[field] for line in lines(DATA / name)]

    sets = {
        "gsm8k": rows("gsm8k/test.jsonl.gz", "question"),
        "ifeval": rows("ifeval/input_data.jsonl.gz", "prompt"),
        "humaneval": rows("humaneval/HumanEval.jsonl.gz", "prompt"),
        "mbpp": rows("mbpp/mbpp.jsonl.gz", "text"),
    }
    bench = Benchmarks([(name, text) for name, items in sets.items() for text in items])
    for name in ("gsm8k", "ifeval", "humaneval"):
        own = [text for text in sets[name] if mine(text)][:300]
        assert told(f"{name} exact", found(bench, own, own))[0] == 1.0
        sure, seen, _ = told(f"{name} reworded", found(bench, list(map(reworded, own)), own))
        assert sure > 0.7 and seen > 0.9
    edited = json.loads("".join(lines(DATA / "mbpp/sanitized-mbpp.json.gz")))
    first = dict(zip(rows("mbpp/mbpp.jsonl.gz", "task_id"), sets["mbpp"], strict=True))
    changed = [row["prompt"] for row in edited if row["prompt"] != first[row["task_id"]]]
    assert told("mbpp edited", found(bench, list(filter(mine, changed))))[1] > 0.5
    least = {"de": 0.8, "es": 0.8, "fr": 0.8, "sw": 0.8, "ru": 0.55, "zh": 0.5, "ja": 0.5}
    for language in ("de", "es", "fr", "sw", "ru", "zh", "ja", "th", "bn", "te"):
        said = [
            line.split("\t")[0] for line in lines(DATA / f"eval_extra/mgsm/mgsm_{language}.tsv")
        ]
        pairs = [pair for pair in zip(said, sets["gsm8k"], strict=False) if mine(pair[1])]
        result = found(bench, *map(list, zip(*pairs, strict=True)))
        assert told(f"GSM8K in {language}", result)[1] >= least.get(language, 0.45)
    train = list(filter(mine, rows("gsm8k/train.jsonl.gz", "question")))[:2000]
    sure, seen, _ = told("clean: GSM8K's train", found(bench, train))
    assert sure < 0.01 and seen < 0.1
    pages = list(filter(mine, rows("corpus_wiki_web_samples/c4_demo.jsonl.gz", "text")))
    sure, seen, _ = told("clean: C4's pages", found(bench, pages))
    assert sure < 0.015 and seen < 0.15
