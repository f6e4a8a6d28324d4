"""The annotators' page and its file: round trip to records, blindness, bad input, a kill."""

import json
import re
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from flywright.annotate import create_app, export, import_items, store
from flywright.errors import UserError
from flywright.records import (
    Comparison,
    Conversation,
    Dialogue,
    Lineage,
    Rating,
    read_jsonl,
    write_jsonl,
)

LINEAGE = Lineage(source="test", answer_by="model", model="SECRET-MODEL")
RATING = {
    "helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 2,
    "confidence": 2, "safe": True, "issues": ["missing"],
}  # fmt: skip


def view(helpfulness, length="right"):
    return {"helpfulness": helpfulness, "truthfulness": 4, "length": length}


@pytest.fixture
def db(tmp_path):
    """Two prompts with two answers each."""
    dialogues = [
        Dialogue(id=f"d{p}{a}", conversation=Conversation.of(f"Q{p}", f"A{a}"), lineage=LINEAGE)
        for a in range(2)
        for p in range(2)
    ]
    write_jsonl(tmp_path / "in.jsonl", dialogues)
    path = tmp_path / "work.db"
    assert import_items(path, tmp_path / "in.jsonl") == 4
    return path


@pytest.fixture
def pairs(tmp_path):
    """Eight pairs whose good answer is always the first."""
    rows = [
        Comparison(
            id=f"c{i}",
            conversation=Conversation.of(f"Q{i}"),
            chosen="good",
            rejected="bad",
            lineage=LINEAGE,
        )
        for i in range(8)
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    path = tmp_path / "pairs.db"
    assert import_items(path, tmp_path / "pairs.jsonl") == 8
    return path


def following(client, name):
    return client.get("/api/next", params={"annotator": name}).json()


def send(client, name, item, label):
    return client.post("/api/label", json={"annotator": name, "item": item, "label": label})


def work_through(client, name, label_for):
    seen = []
    while "item" in (shown := following(client, name)):
        seen.append(shown)
        assert send(client, name, shown["item"], label_for(shown)).status_code == 200
        assert len(seen) < 100
    return seen


def test_ratings_round_trip(db, tmp_path):
    client = TestClient(create_app(db))
    orders = []
    for name in ("ann", "bob", "cleo"):
        seen = work_through(client, name, lambda _: RATING)
        orders.append([shown["item"] for shown in seen])
        prompts = [shown["messages"][0]["content"] for shown in seen]
        assert prompts[0] == prompts[1] != prompts[2] == prompts[3]  # one prompt after the other
    assert "item" not in following(client, "dora")  # three are enough
    summary = export(db, tmp_path / "out")
    ratings = list(read_jsonl(tmp_path / "out" / "ratings.jsonl", Rating))
    assert len(ratings) == summary["ratings"] == 4
    assert ratings[0].attributes == (3, 4, 4, 1, 2)
    assert ratings[0].lineage.model == "SECRET-MODEL"
    votes = ratings[0].lineage.verdicts
    assert [vote.judge for vote in votes] == ["ann", "bob", "cleo"]
    assert json.loads(votes[0].detail) == RATING  # nothing that people said is lost
    assert export(db, tmp_path / "out") == summary  # again, over its own files
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        export(db, tmp_path / "out")


def test_two_more_annotators_are_asked_when_three_disagree(db):
    client = TestClient(create_app(db))
    for name, helpfulness in (("a", 0), ("b", 4), ("c", 4), ("d", 4), ("e", 4)):
        label = {**RATING, "helpfulness": helpfulness}
        assert len(work_through(client, name, lambda _, label=label: label)) == 4
    assert "item" not in following(client, "f")


def test_comparisons_round_trip_blind_and_unswapped(pairs, tmp_path):
    client = TestClient(create_app(pairs))

    def judge(shown):
        good = shown["left"] == "good"
        better, worse = view(5), view(0, "too long")
        return {"left": better, "right": worse} if good else {"left": worse, "right": better}

    sides = []
    for name in ("ann", "bob", "cleo"):
        for shown in work_through(client, name, judge):
            sides.append(shown["left"])
            assert "SECRET" not in json.dumps(shown)
            assert "chosen" not in shown
    assert 4 <= sides.count("good") <= 20  # both orders occur
    summary = export(pairs, tmp_path / "out")
    comparisons = list(read_jsonl(tmp_path / "out" / "comparisons.jsonl", Comparison))
    assert [(c.chosen, c.rejected) for c in comparisons] == [("good", "bad")] * 8
    assert summary["comparisons"] == 8


def test_sides_are_drawn_from_annotator_and_item(pairs):
    client = TestClient(create_app(pairs))
    assert following(client, "ann") == following(client, "ann")
    first = {shown["item"]: shown["left"] for shown in work_through(client, "a", lambda _: SKIP)}
    second = {shown["item"]: shown["left"] for shown in work_through(client, "b", lambda _: SKIP)}
    assert first != second


SKIP = {"skip": "personal"}


def test_flag_and_skip_closes_an_item_after_two(db, tmp_path):
    client = TestClient(create_app(db))
    for name in ("a", "b"):
        assert len(work_through(client, name, lambda _: SKIP)) == 4
    assert "item" not in following(client, "c")
    assert export(db, tmp_path / "out")["ratings_dropped"] == {"flagged": 4}


@pytest.mark.parametrize(
    "label",
    [
        {},
        {**RATING, "helpfulness": 5},
        {**RATING, "helpfulness": -1},
        {**RATING, "helpfulness": None},
        {**RATING, "helpfulness": 2.5},
        {**RATING, "helpfulness": True},
        {**RATING, "helpfulness": "3"},
        {**RATING, "mood": 1},
        {**RATING, "issues": ["boring"]},
        {"skip": "tired"},
        {"left": view(1), "right": view(1)},
    ],
)
def test_bad_labels_are_refused_with_a_reason_and_not_kept(db, label):
    client = TestClient(create_app(db))
    response = send(client, "ann", "d00", label)
    assert response.status_code == 400
    assert response.json()["detail"]
    assert following(client, "ann")["done"] == 0


def test_bad_requests(db, pairs):
    client = TestClient(create_app(db))
    assert send(client, "ann", "nothing", RATING).status_code == 404
    for name in ("", "x" * 61, "<script>"):
        assert client.get("/api/next", params={"annotator": name}).status_code == 400
        assert send(client, name, "d00", RATING).status_code == 400
    half = {"left": view(1)}
    assert send(TestClient(create_app(pairs)), "ann", "c0", half).status_code == 400
    plain = client.post("/api/label", content=b"{}", headers={"Content-Type": "text/plain"})
    assert plain.status_code == 400


def test_a_label_sent_twice_is_kept_once_and_the_later_counts(db):
    client = TestClient(create_app(db))
    send(client, "ann", "d00", RATING)
    send(client, "ann", "d00", {**RATING, "helpfulness": 1})
    [labels] = [labels for item, labels in store.everything(db) if item.id == "d00"]
    assert [(who, label.model_dump()["helpfulness"]) for who, label in labels] == [("ann", 1)]


def test_the_page_is_there_and_loads_nothing_from_elsewhere(db):
    client = TestClient(create_app(db))
    page = client.get("/")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    for path in re.findall(r'(?:src|href)="([^"#]+)"', page.text):
        assert client.get(path).status_code == 200
    assert not re.search(r"https?://|innerHTML", page.text + client.get("/page.js").text)
    assert '<html lang="en">' in page.text


def test_many_annotators_at_once_lose_nothing(db):
    client = TestClient(create_app(db))

    def judge(index):
        return send(client, f"p{index}", "d00", RATING).status_code

    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(judge, range(30))) == [200] * 30
    [labels] = [labels for item, labels in store.everything(db) if item.id == "d00"]
    assert len(labels) == 30


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from flywright.annotate import store
    from flywright.annotate.labels import RatingLabel
    for index in range(5):
        label = RatingLabel(helpfulness=index % 5, correctness=1, coherence=1, complexity=1,
                            verbosity=1, confidence=1)
        store.add_label(Path(sys.argv[1]), "d00", f"p{index}", label)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_acknowledged_labels_survive_kill_9(db):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(db)])
    assert done.returncode == -9
    [labels] = [labels for item, labels in store.everything(db) if item.id == "d00"]
    assert [label.model_dump()["helpfulness"] for _, label in labels] == [0, 1, 2, 3, 4]
    with store.opened(db) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def write(path: Path, *values) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def test_import_is_repeatable(tmp_path):
    conversation = {"messages": [{"role": "user", "content": "Q"}]}
    lineage = {"source": "test"}
    row = {"id": "x", "conversation": conversation, "chosen": "a", "rejected": "b"}
    row["lineage"] = lineage
    db, path = tmp_path / "w.db", write(tmp_path / "in.jsonl", row)
    assert import_items(db, path) == 1
    assert import_items(db, path) == 0
    with pytest.raises(UserError, match=r"in.jsonl:1: item 'x' is there with other content"):
        import_items(db, write(path, {**row, "rejected": "c"}))


@pytest.mark.parametrize("value", [{}, [], 3, {"id": "x"}, {"chosen": "a"}])
def test_import_names_the_bad_line_and_adds_nothing(tmp_path, value):
    good = Dialogue(id="d", conversation=Conversation.of("Q", "A"), lineage=LINEAGE)
    path = write(tmp_path / "in.jsonl", good.model_dump(mode="json"), value)
    with pytest.raises(UserError, match=r"in.jsonl:2: nothing to annotate"):
        import_items(tmp_path / "w.db", path)
    assert store.everything(tmp_path / "w.db") == []


def test_files_that_are_no_database(tmp_path):
    path = tmp_path / "w.db"
    path.write_text("not a database " * 100)
    with pytest.raises(UserError, match=r"w.db"):
        create_app(path)
    with pytest.raises(UserError, match="no such file"):
        export(tmp_path / "none.db", tmp_path / "out")
