"""Live servers for clients that need real HTTP: an app in a thread, the command in a process."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import uvicorn
from fastapi.testclient import TestClient
from watched import Watched

from flywright.ask import ScriptedScorer
from flywright.model import Decoder, RewardModel, save
from flywright.records import ATTRIBUTES
from flywright.serve import ServeSettings, create_app
from flywright.serve.listen import Timely
from flywright.spec import ModelSpec


@pytest.fixture
def live():
    """`live(app) -> port`; every server stops at the end of the test."""
    started: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(app) -> int:
        config = uvicorn.Config(app, port=0, log_level="error", lifespan="off", http=Timely)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        started.append((server, thread))
        return server.servers[0].sockets[0].getsockname()[1]

    yield start
    for server, _ in started:
        server.force_exit = server.should_exit = True
    for _, thread in started:
        thread.join(timeout=10)


@pytest.fixture(scope="session")
def decoder() -> Decoder:
    torch.set_num_threads(1)
    spec = ModelSpec(
        vocab_size=400, hidden_size=32, layers=2, heads=4, kv_heads=2, head_dim=16,
        ffn_size=64, context_length=512, init_std=0.3,
    )  # fmt: skip
    return Decoder(spec, seed=0)


@pytest.fixture
def reader(decoder, tokenizer) -> Watched:
    return Watched(decoder, tokenizer)


@pytest.fixture(scope="session")
def values() -> dict[str, float]:
    return dict(zip(ATTRIBUTES, (4.0, 3.0, 2.0, 1.0, 0.5), strict=True))


@pytest.fixture
def app_of(reader, tokenizer, values):
    """`app_of(**settings)`: the engine and a scripted scorer behind all wires."""
    scorer = ScriptedScorer(lambda c: {**values, "verbosity": float(len(c.last))}, "judge")

    def make(who=reader, **settings):
        chosen = ServeSettings(**{"model_name": "m", "context_tokens": 512, **settings})
        return create_app(who, tokenizer, scorer, chosen)

    return make


@pytest.fixture
def client(app_of) -> TestClient:
    return TestClient(app_of())


@pytest.fixture(scope="session")
def folders(decoder, tokenizer, tmp_path_factory) -> Path:
    """A folder with `policy` and `reward`."""
    path = tmp_path_factory.mktemp("served")
    decoder = Decoder(decoder.spec.model_copy(update={"context_length": 256}), seed=0)
    for name, model in (("policy", decoder), ("reward", RewardModel.from_decoder(decoder, seed=0))):
        save(model, path / name)
        tokenizer.save(path / name)
    return path


@pytest.fixture
def serve():
    """`serve(*arguments) -> (process, port)`: the real command, stopped at the end of the test."""
    running: list[subprocess.Popen] = []

    def start(*arguments, port=0, **environment):
        command = [sys.executable, "-m", "flywright.cli", "serve", *map(str, arguments)]
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        running.append(process)
        assert process.stdout
        said = process.stdout.readline()
        found = re.search(r"http://\S+:(\d+)", said)
        assert found, said + process.stdout.read()
        return process, int(found.group(1))

    yield start
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
