"""A file through all filters: what stays, what goes and why, and that no line is lost."""

import json
import random
from collections import Counter

import pytest

from flywright.errors import UserError
from flywright.records import Comparison, Conversation, Dialogue, Document, Lineage
from flywright.report.hits import write_hits
from flywright.synth.decontaminate import Benchmarks
from flywright.synth.stream import Sieve, filter_file

WORDS = [f"word{n}" for n in range(900)]


def text(seed, length=30):
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def dialogue(name, said, reward):
    scores = {} if reward is None else {"reward": reward}
    lineage = Lineage(source="s", answer_by="model", scores=scores)
    conversation = Conversation.of(said, "an answer")
    return Dialogue(id=name, conversation=conversation, lineage=lineage)


def pair(name, said, chosen, judge="llm", reward=None):
    return Comparison(
        id=name,
        conversation=Conversation.of(said),
        chosen=chosen,
        rejected="bad",
        chosen_reward=reward,
        judge=judge,
        lineage=Lineage(source="s"),
    )


ITEM = text(999)
RECORDS = [
    dialogue("poor", text(1), 1.0),
    dialogue("first", text(1), 3.0),  # its copy above is dropped, so this stays
    dialogue("copy", text(1).upper(), 4.0),
    dialogue("near", text(1, 29) + " word", 4.0),
    dialogue("stolen", f"Do tell: {ITEM} Now.", 5.0),
    dialogue("unscored", text(2), None),
    pair("p1", text(3), "one answer", reward=3.0),
    pair("p2", text(3), "another answer that is quite different in all its words", reward=3.0),
    pair("p3", text(4), "x", judge="truth"),
    pair("p4", text(5), f"the answer is {ITEM}", reward=9.0),
    Document(text=text(6), source="books"),
]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(r.model_dump_json(exclude_defaults=True) for r in RECORDS) + "\n")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_record_is_kept_or_dropped_with_its_reason(source, tmp_path):
    sieve = Sieve(near=0.7, reward=2.0)
    counts, hits = filter_file(source, tmp_path / "out", sieve, Benchmarks([("exam", ITEM)]))
    kept, dropped = (read(tmp_path / "out" / f"{name}.jsonl") for name in ("kept", "dropped"))
    assert [row.get("id", "document") for row in kept] == ["first", "p1", "p2", "p3", "document"]
    assert {row["record"]["id"]: (row["reason"], row.get("of")) for row in dropped} == {
        "poor": ("reward below the threshold", None),
        "copy": ("exact copy", "first"),
        "near": ("near copy", "first"),
        "stolen": ("contaminated: words", "exam"),
        "unscored": ("no reward", None),
        "p4": ("contaminated: words", "exam"),
    }
    assert counts["in"] == len(RECORDS) == counts["out"] + len(dropped)
    reasons = Counter(f"dropped: {row['reason']}" for row in dropped)
    assert reasons == {name: n for name, n in counts.items() if name.startswith("dropped")}
    assert kept[0]["lineage"]["filters"] == ["exact", "near<0.7", "reward>=2", "decontaminated"]
    assert (
        [hit["record"] for hit in hits]
        == ["stolen", "p4"]
        == [hit["record"] for hit in read(tmp_path / "out/hits.jsonl")]
    )
    assert dropped[0]["record"] == RECORDS[0].model_dump(exclude_defaults=True, mode="json")
    assert not list((tmp_path / "out").glob(".*"))


def test_a_filter_that_is_off_drops_nothing(source, tmp_path):
    counts, hits = filter_file(source, tmp_path / "out", Sieve(exact=False, near=0.0))
    assert counts == {"in": len(RECORDS), "out": len(RECORDS)} and hits == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "not valid JSON"),
        ("[1]", "expected an object"),
        ('{"id": "x"}', "not a Prompt: conversation: Field required"),
        ('{"conversation": "hello"}', "not a Prompt"),
        ('{"conversation": {"messages": ["hello"]}}', "not a Prompt"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(source, tmp_path, line, fault):
    with source.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(UserError, match=f"in.jsonl:{len(RECORDS) + 1}: {fault}".replace("[", ".")):
        filter_file(source, tmp_path / "out", Sieve())
    assert not (tmp_path / "out").exists()


def test_the_page_marks_shared_words_and_says_what_is_unseen(source, tmp_path):
    bench = Benchmarks([("exam", ITEM), ("exam", "Why")])
    _, hits = filter_file(source, tmp_path / "out", Sieve(), bench)
    page = tmp_path / "hits.html"
    write_hits(page, hits, bench.coverage, ["gsm8k"], list(bench.methods))
    said = page.read_text()
    assert "2 records dropped" in said and "Do tell" in said and "<strong>Not checked" in said
    first = ITEM.split()[0]
    assert f"<mark>{first}</mark>" in said and "<mark>tell</mark>" not in said
    assert "<tr><th>exam</th><td>2</td><td>1</td><td>1</td><td>0</td></tr>" in said
    write_hits(page, [{**hits[0], "item": "<script>x</script>"}], {}, [], [])
    assert "<script>" not in page.read_text() and "nothing was checked" in page.read_text()
