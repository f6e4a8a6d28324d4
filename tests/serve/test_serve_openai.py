"""OpenAI's wire and rewards: answers, streams, refusals in OpenAI's shape, limits."""

import asyncio
import threading

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from flywright.ask import AskError, Sampling, Scripted, ScriptedScorer
from flywright.errors import UserError
from flywright.records import ATTRIBUTES, Conversation
from flywright.serve import HttpCompleter, HttpScorer, ServeSettings, create_app

HI = [{"role": "user", "content": "Hi there"}]
RATED = [*HI, {"role": "assistant", "content": "Hello"}]
VALUES: dict[str, float] = dict(zip(ATTRIBUTES, (4.0, 3.0, 2.0, 1.0, 0.5), strict=True))


def echo(prompt, sampling):
    last = prompt if isinstance(prompt, str) else prompt.last
    return f"{last} / {sampling.temperature:g} {sampling.max_tokens} {sampling.seed}"


@pytest.fixture
def client(tokenizer):
    scorer = ScriptedScorer(lambda _: VALUES, "judge")
    return TestClient(
        create_app(Scripted(echo, "m"), tokenizer, scorer, ServeSettings(context_tokens=100))
    )


def chat(client, **body):
    return client.post("/v1/chat/completions", json={"messages": HI, "max_tokens": 9, **body})


def test_chat_completion(client):
    value = chat(client, model="m", temperature=0, seed=5).json()
    assert value["object"] == "chat.completion"
    [choice] = value["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hi there / 0 9 5"}
    assert choice["finish_reason"] == "stop"
    usage = value["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


def test_text_parts_developer_role_and_default_temperature(client):
    parts = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "you"}]
    messages = [{"role": "developer", "content": "Short."}, {"role": "user", "content": parts}]
    text = chat(client, messages=messages, seed=1).json()["choices"][0]["message"]["content"]
    assert text == "Hi you / 1 9 1"


def test_n_answers_have_their_own_seeds(client):
    choices = chat(client, n=3, seed=5).json()["choices"]
    texts = [choice["message"]["content"] for choice in choices]
    assert len(set(texts)) == 3
    assert texts[0].endswith(" 5")
    assert texts == [c["message"]["content"] for c in chat(client, n=3, seed=5).json()["choices"]]


def test_text_completion_of_several_prompts(client):
    body = {"prompt": ["a", "b"], "max_tokens": 3, "temperature": 0, "seed": 1}
    choices = client.post("/v1/completions", json=body).json()["choices"]
    assert [c["text"].split()[0] for c in choices] == ["a", "b"]
    assert [c["index"] for c in choices] == [0, 1]


@pytest.mark.parametrize(
    ("bad", "status", "param"),
    [
        ({"messages": []}, 400, "messages"),
        ({"messages": "Hi"}, 400, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 3}]}, 400, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, None),
        ({"messages": [*HI, *HI]}, 400, "messages"),
        ({"messages": RATED, "model": "m"}, 400, "messages"),
        ({"model": "other"}, 404, "model"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": True}, 400, "temperature"),
        ({"temperature": "1"}, 400, "temperature"),
        ({"top_p": 0}, 400, "top_p"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": True}, 400, "max_tokens"),
        ({"max_tokens": 10**9}, 400, None),
        ({"n": 100_000}, 400, "n"),
        ({"seed": 2**70}, 400, "seed"),
        ({"stop": ""}, 400, "stop"),
        ({"stop": ["a"] * 17}, 400, "stop"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"response_format": {"type": "xml"}}, 400, "response_format"),
        ({"presence_penalty": 0.5}, 400, "presence_penalty"),
        ({"logit_bias": {"1": 2}}, 400, "logit_bias"),
        ({"logprobs": True}, 400, "logprobs"),
        ({"stream": 1}, 400, "stream"),
        ({"max_token": 3}, 400, "max_token"),
    ],
)
def test_refusals_have_openais_shape_and_name_the_field(client, bad, status, param):
    response = chat(client, **bad)
    error = response.json()["error"]
    assert response.status_code == status
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    if param:
        assert error["param"] == param


def test_an_unknown_field_names_its_near_miss(client):
    assert "did you mean 'max_tokens'" in chat(client, max_token=3).json()["error"]["message"]


def test_fields_that_ask_for_nothing_pass(client):
    assert chat(client, tools=[], stream=False, response_format={"type": "text"}).status_code == 200


def test_a_request_that_does_not_fit_is_refused_before_it_costs(tokenizer):
    completer = Scripted(echo)
    client = TestClient(create_app(completer, tokenizer, None, ServeSettings(context_tokens=30)))
    response = chat(client, max_tokens=30)
    assert response.json()["error"]["code"] == "context_length_exceeded"
    body = {"prompt": "fox " * 100}
    assert client.post("/v1/completions", json=body).status_code == 400
    assert completer.calls == 0


def test_models_health_and_unknown_paths(client):
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["m", "judge"]
    assert client.get("/health").json()["status"] == "ok"
    assert client.get("/v1/nothing").json()["error"]["message"] == "Not Found"
    assert client.get("/v1/chat/completions").status_code == 405


def test_rewards(client):
    value = client.post("/v1/rewards", json={"messages": RATED}).json()
    assert value["attributes"] == VALUES
    expected = 0.3 * 4 + 0.74 * 3 + 0.46 * 2 + 0.47 * 1 - 0.33 * 0.5
    assert value["reward"] == pytest.approx(expected)
    for bad in ({"messages": HI}, {"messages": [*RATED, *HI]}, {}, {"messages": RATED, "x": 1}):
        assert client.post("/v1/rewards", json=bad).status_code == 400
    named = {"messages": RATED, "model": "m"}
    assert client.post("/v1/rewards", json=named).status_code == 404


def test_hosted_reward_format(client):
    for model in ({"model": "judge"}, {}):
        [choice] = chat(client, messages=RATED, **model).json()["choices"]
        rows = choice["logprobs"]["content"]
        assert {row["token"]: row["logprob"] for row in rows} == VALUES
    assert chat(client, model="judge").status_code == 400  # nothing to rate


def test_rewards_need_a_scorer(tokenizer):
    client = TestClient(create_app(Scripted(echo), tokenizer))
    assert client.post("/v1/rewards", json={"messages": RATED}).status_code == 404
    assert chat(client, messages=RATED).status_code == 400


def test_large_bodies_are_refused_declared_or_not(tokenizer):
    settings = ServeSettings(max_body_bytes=1000)
    client = TestClient(create_app(Scripted(echo), tokenizer, None, settings))
    assert chat(client, user="x" * 2000).status_code == 413

    def parts():
        for _ in range(3):
            yield b"x" * 500

    headers = {"Content-Type": "application/json"}
    response = client.post("/v1/completions", content=parts(), headers=headers)
    assert response.status_code == 413


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (AskError("later", retryable=True, retry_after_seconds=2.5), 503, "3"),
        (AskError("never"), 502, None),
        (UserError("bad prompt"), 400, None),
        (RuntimeError("secret detail"), 500, None),
    ],
)
def test_failures_of_the_answerer(tokenizer, error, status, retry):
    def fail(*_):
        raise error

    app = create_app(Scripted(fail), tokenizer)
    response = chat(TestClient(app, raise_server_exceptions=False))
    assert response.status_code == status
    assert response.headers.get("Retry-After") == retry
    assert "secret" not in response.text


class Waiting(Scripted):
    """Answers when told to."""

    def __init__(self):
        super().__init__(echo, "m")
        self.asked = threading.Semaphore(0)
        self.go = threading.Event()

    async def complete(self, prompt, sampling):
        self.asked.release()
        while not self.go.is_set():
            await asyncio.sleep(0.005)
        return await super().complete(prompt, sampling)


def test_a_full_house_answers_429_with_retry_after(live, tokenizer):
    completer = Waiting()
    port = live(create_app(completer, tokenizer, None, ServeSettings(max_pending=2)))
    client = HttpCompleter(f"http://127.0.0.1:{port}", "m")

    async def ask():
        two = [asyncio.create_task(client.complete("a", Sampling())) for _ in range(2)]
        for _ in range(2):
            await asyncio.to_thread(completer.asked.acquire)
        with pytest.raises(AskError) as failed:
            await client.complete("c", Sampling())
        completer.go.set()
        return failed.value, await asyncio.gather(*two)

    error, answers = asyncio.run(ask())
    assert (error.retryable, error.retry_after_seconds) == (True, 1.0)
    assert len(answers) == 2
    assert asyncio.run(client.complete("d", Sampling())).text.startswith("d")  # places came back


def test_client_and_server_round_trip(live, tokenizer):
    completer = Scripted(echo, "m")
    scorer = ScriptedScorer(lambda c: {**VALUES, "verbosity": float(len(c.last))}, "judge")
    base = f"http://127.0.0.1:{live(create_app(completer, tokenizer, scorer))}"
    client = HttpCompleter(base, tag="t1")
    assert client.model == "m@t1"  # discovered
    drawn = Sampling(max_tokens=7, temperature=0.5, seed=2**62)
    answer = asyncio.run(client.complete(Conversation.of("Hi"), drawn))
    assert answer.text == f"Hi / 0.5 7 {2**62}"
    assert answer.completion_tokens > 0
    assert asyncio.run(client.complete("raw", drawn)).text.startswith("raw /")
    attributes = asyncio.run(HttpScorer(base).score(Conversation.of("Hi", "Hello")))
    assert attributes == {**VALUES, "verbosity": 5.0}
    with pytest.raises(AskError, match="last one must be") as failed:
        asyncio.run(HttpScorer(base, "judge").score(Conversation.of("Hi")))
    assert not failed.value.retryable


def test_ten_clients_at_once_get_their_own_answers(live, tokenizer):
    base = f"http://127.0.0.1:{live(create_app(Scripted(echo, 'm'), tokenizer))}"

    async def one(index):
        client = HttpCompleter(base, "m")
        asks = [client.complete(f"{index} {turn}", Sampling(seed=turn)) for turn in range(5)]
        answers = await asyncio.gather(*asks)
        await client.http.close()
        return [answer.text for answer in answers]

    async def everyone():
        return await asyncio.gather(*(one(index) for index in range(10)))

    assert asyncio.run(everyone()) == [
        [f"{index} {turn} / 0 128 {turn}" for turn in range(5)] for index in range(10)
    ]


def test_logprobs_come_from_an_echo(live):
    """As vLLM echoes: each token with its start, the first without a log-probability."""
    app = FastAPI()

    @app.post("/v1/completions")
    async def echoed(request: Request):
        asked = await request.json()
        assert asked["echo"] and asked["max_tokens"] == 0
        count = len(asked["prompt"])
        logprobs = [None, *(-float(index) for index in range(1, count))]
        report = {"text_offset": list(range(count)), "token_logprobs": logprobs}
        return {"choices": [{"text": asked["prompt"], "logprobs": report}]}

    client = HttpCompleter(f"http://127.0.0.1:{live(app)}", "m")
    assert asyncio.run(client.logprobs("ab", ["c", "de"])) == [-2.0, -5.0]


def test_nobody_there_is_a_retryable_ask_error():
    with pytest.raises(AskError) as failed:
        asyncio.run(HttpCompleter("http://127.0.0.1:9", "m").complete("a", Sampling()))
    assert failed.value.retryable
