"""`flywright synth filter` as it is typed: a benchmark, a server of vectors, a judge, the card."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from flywright.ask import AskError
from flywright.errors import UserError
from flywright.recipe.flow_run import run_one
from flywright.records import Conversation, Dialogue, Lineage, write_jsonl
from flywright.serve import create_fake_app
from flywright.serve.embedder import HttpEmbedder
from served import served

SERVER = '''
import json, zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

asked = []

def vector(text):
    """Words in any order, doubled: not of length 1."""
    row = [0.0] * 64
    for word in text.lower().replace(".", "").split():
        row[zlib.crc32(word.encode()) % 64] += 2.0
    return row

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_): pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked.append(len(body["input"]))
        status, said = 200, {"data": [
            {"index": n, "embedding": vector(text)} for n, text in enumerate(body["input"])
        ][::-1]}
        if len(asked) == 1:
            status, said = 429, {"error": {"message": "not so fast"}}
        elif body["model"] != "vectors" or self.headers["authorization"] != "Bearer secret":
            status, said = 404, {"error": {"message": "no such model"}}
        elif "short" in body["input"]:
            said["data"].pop()
        raw = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("Retry-After", "0.01")
        self.end_headers()
        self.wfile.write(raw)

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
'''


@pytest.fixture
def vectors():
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.kill()


@pytest.fixture
def judge():
    with served(create_fake_app()) as address:
        yield address


def test_vectors_of_a_server_in_order_and_what_it_gets_wrong(vectors):
    texts = [f"text {n} " + "word " * (n % 7) for n in range(300)]
    embedder = HttpEmbedder(vectors, "vectors", "secret")
    found = embedder.embed(texts)  # the first request is refused, and made again
    assert found.shape == (300, 64) and found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    assert np.array_equal(embedder.embed(texts[200:203]), found[200:203])
    with pytest.raises(AskError, match="no embedding for each text"):
        HttpEmbedder(vectors, "vectors", "secret").embed(["short", "text"])
    with pytest.raises(AskError, match="404: no such model"):
        HttpEmbedder(vectors, "others", "secret").embed(["text"])


EXAM = "A farmer has 17 sheep and 4 of them run away at night. How many sheep has he left?"


def dialogue(name, said, reward=3.0):
    lineage = Lineage(source="s", answer_by="model", scores={"reward": reward})
    return Dialogue(id=name, conversation=Conversation.of(said, "An answer."), lineage=lineage)


def test_a_file_through_every_filter(vectors, judge, tmp_path, monkeypatch):
    some = [
        dialogue("kept", "Describe the harbour of a small town in winter."),
        dialogue("shuffled", "In winter describe the small town of a harbour."),
        dialogue("again", "Describe the harbour of a small town in winter."),
        dialogue("poor", "Tell me of bees.", reward=0.5),
        dialogue("stolen", f"Please: {EXAM}"),
        dialogue("other", "What do bakers do before dawn, and why so early?"),
    ]
    write_jsonl(tmp_path / "made.jsonl", some)
    (tmp_path / "exam.jsonl").write_text(json.dumps({"benchmark": "exam", "text": EXAM}) + "\n")
    (tmp_path / "f.toml").write_text(
        f'data = "{tmp_path}/made.jsonl"\nout = "{tmp_path}/out"\ntexts = "{tmp_path}/exam.jsonl"\n'
        f'reward = 1.0\nembedder = "{vectors}"\nembedder_model = "vectors"\n'
        f'api_key_variable = "KEY_OF_VECTORS"\nlicences = {{s = "CC0"}}\n'
        f'judge = {{model = "{judge}"}}\n'
    )
    monkeypatch.setenv("KEY_OF_VECTORS", "secret")
    told = run_one("filter", tmp_path / "f.toml", [])
    assert told.startswith(f"filter: 2 of 6 kept in {tmp_path}/out; ")
    lines = (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()
    assert {row["record"]["id"]: row["reason"] for row in map(json.loads, lines)} == {
        "shuffled": "alike by embedding",
        "again": "exact copy",
        "poor": "reward below the threshold",
        "stolen": "contaminated: words",
    }
    kept = [json.loads(x) for x in (tmp_path / "out" / "kept.jsonl").read_text().splitlines()]
    assert [row["id"] for row in kept] == ["kept", "other"]
    assert kept[0]["lineage"]["filters"] == [
        *("exact", "near<0.8", "cosine<0.95", "reward>=1", "decontaminated")
    ]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Compared with exam (1 items): 1 records dropped" in card and "| `s` | CC0 |" in card
    page = (tmp_path / "out" / "hits.html").read_text()
    assert EXAM in re.sub("<[^>]+>", "", page)  # each word of it is marked
    with pytest.raises(UserError, match="expected an object with benchmark and text"):
        (tmp_path / "exam.jsonl").write_text('{"text": "no benchmark"}\n')
        run_one("filter", tmp_path / "f.toml", [])
