"""The real command in a real process: the published client, the health check, SIGTERM, folders."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from flywright.errors import UserError
from flywright.recipe.verbs import serve_folder

CLIENT = Path(__file__).with_name("call_server.txt")  # as the model card has it, to the letter


def call(port, path, body=None, method="POST", **headers):
    """Status and JSON."""
    data = None if body is None else json.dumps(body).encode()
    asked = Request(
        f"http://127.0.0.1:{port}{path}",
        data,
        {"Content-Type": "application/json", **headers},
        method=method if body is not None else "GET",
    )
    try:
        with urlopen(asked, timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def free_1424():
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", 1424)) != 0


def test_the_model_cards_client_and_health_check_run_unchanged(serve, folders, tmp_path):
    """Where another server holds port 1424, the client's port is the one thing that is changed."""
    text = CLIENT.read_text(encoding="utf-8")
    _, port = serve(folders / "policy", port=1424 if free_1424() else 0)
    for host in ("0.0.0.0", "localhost"):  # the card's script waits on the first
        done = subprocess.run(["curl", "-s", "-X", "PUT", f"http://{host}:{port}"], timeout=60)
        assert done.returncode == 0
    script = tmp_path / "call_server.py"
    script.write_text(text if port == 1424 else text.replace("port=1424", f"port={port}"))
    command = [sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    prompt = "<extra_id_0>System\n\n<extra_id_1>User\nWrite a poem on NVIDIA in the style of"
    assert done.stdout.startswith(prompt)
    said = done.stdout.partition("<extra_id_1>Assistant\n")[2]
    body = {"prompt": f"{prompt} Shakespeare\n<extra_id_1>Assistant\n", "temperature": 0}
    [choice] = call(port, "/v1/completions", {**body, "max_tokens": 60})[1]["choices"]
    assert said.strip() and said.strip()[:60] == choice["text"].strip()[:60]


def test_both_models_on_one_port_and_keys_from_the_environment(serve, folders):
    options = (folders / "policy", "--reward", folders / "reward")
    _, port = serve(*options, FLYWRIGHT_API_KEYS="a-secret-key")
    key = {"Authorization": "Bearer a-secret-key"}
    messages = [{"role": "user", "content": "Hi"}]
    assert call(port, "/v1/models")[0] == 401
    assert [one["id"] for one in call(port, "/v1/models", **key)[1]["data"]] == ["policy", "reward"]
    body = {"messages": messages, "answers": ["a", "The fox"]}
    status, told = call(port, "/v1/rewards", body, **key)
    assert status == 200 and len({row["reward"] for row in told["data"]}) == 2
    score = {"text_1": "Hi", "text_2": ["a", "The fox"]}
    rows = call(port, "/score", score, **key)[1]["data"]
    assert [row["score"] for row in rows] == pytest.approx([row["reward"] for row in told["data"]])
    chat = {"messages": messages, "max_tokens": 4, "best_of": 3, "seed": 1}
    assert call(port, "/v1/chat/completions", chat, **key)[0] == 200
    assert call(port, "/health")[1] == {"status": "ok", "model": "policy", "reward_model": "reward"}


def test_a_reward_folder_alone(serve, folders):
    _, port = serve(folders / "reward")
    pair = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    status, told = call(port, "/v1/chat/completions", {"messages": pair})
    assert status == 200 and len(told["choices"][0]["logprobs"]["content"]) == 5
    assert call(port, "/v1/completions", {"prompt": "a"})[0] == 404
    assert call(port, "/generate", {"sentences": ["a"]}, "PUT")[0] == 404
    assert [one["id"] for one in call(port, "/v1/models")[1]["data"]] == ["reward"]
    assert call(port, "/metrics", Host="evil.example")[0] == 421


def test_sigterm_lets_answers_finish_and_takes_no_new_ones(serve, folders):
    process, port = serve(folders / "policy")
    body = {"prompt": "The", "max_tokens": 240, "temperature": 0, "stream": True}
    said = bytearray()
    asked = Request(
        f"http://127.0.0.1:{port}/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urlopen(asked, timeout=60) as stream:
        busy = {"prompt": "A dog", "max_tokens": 240, "temperature": 1, "n": 16}
        others: list[int] = []
        thread = threading.Thread(
            target=lambda: others.append(call(port, "/v1/completions", busy)[0])
        )
        thread.start()
        while int(re.search(r"(?m)^flywright_pending_answers (\d+)", metrics(port)).group(1)) < 16:
            pass
        process.send_signal(signal.SIGTERM)
        statuses = []
        while process.poll() is None:
            try:
                statuses.append(call(port, "/v1/completions", {"prompt": "a"})[0])
            except OSError:
                break
        said += stream.read()
    thread.join(timeout=60)
    assert said.endswith(b"data: [DONE]\n\n")
    assert others == [200]
    assert statuses and set(statuses) <= {200, 503} and statuses[-1] == 503
    assert process.wait(timeout=60) == 0


def metrics(port):
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as page:
        return page.read().decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("MODEL", "--reward", "MODEL"), "not a reward model"),
        (("nowhere",), "nowhere"),
        (("MODEL", "--api-key-file", "nowhere"), "cannot read API keys"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(folders, arguments, said):
    places = [folders / "policy" if one == "MODEL" else Path(one) for one in arguments]
    model, options = places[0], dict(zip(arguments[1::2], places[2::2], strict=True))
    with pytest.raises(UserError, match=said):
        serve_folder(
            model, options.get("--reward"), ("127.0.0.1", 0), 0.1, options.get("--api-key-file")
        )
