"""Nothing that a client sends kills the server: peers' bad requests, fuzzed fields, the OpenAPI."""

import asyncio
import json

import httpx2
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from schemathesis.config import SchemathesisConfig

from flywright.serve.nemo_wire import ROWS
from flywright.serve.openai_bodies import ChatRequest, TextRequest
from flywright.serve.problems import Problem
from flywright.serve.reward_wire import RewardRequest, ScoreRequest
from flywright.tokenizer import Tokenizer

MESSAGES = [{"role": "user", "content": "a"}]
JSON = {"Content-Type": "application/json"}
BAD = {  # requests on which other servers differ: 200, 500 and hanging among their answers
    "temperature": {"temperature": -1},
    "out of vocabulary": {"prompt": [400]},
    "negative id": {"prompt": [-1]},
    "huge id": {"prompt": [2**70]},
    "stop id": {"stop_token_ids": [400]},
    "beyond the context": {"max_tokens": 100_000},
    "unknown model": {"model": "other"},
    "n": {"n": 100_000},
    "bad regex": {"guided_regex": "((("},
    "empty stop": {"stop": ""},
    "empty prompt": {"prompt": ""},
    "no prompt": {"prompt": []},
    "empty among prompts": {"prompt": ["a", ""]},
    "other prompts": {"prompt": ["a", {}]},
    "seed": {"seed": 2**64},
    "logit_bias": {"logit_bias": {"1000000": 1}},
    "unknown key": {"max_token": 3},
    "boolean": {"max_tokens": True},
    "boolean ids": {"prompt": [True]},
    "logprobs": {"logprobs": 21},
    "many stops": {"stop": ["x"] * 17},
    "long stop": {"stop": "x" * 1025},
    "many stop ids": {"stop_token_ids": [1] * 65},
    "many prompts": {"prompt": ["x"] * 129},
    "two grammars": {"guided_regex": "a", "guided_json": {}},
    "grammar size": {"guided_regex": "a" * (1 << 17)},
    "least beyond most": {"min_tokens": 5, "max_tokens": 4},
    "best_of below n": {"n": 3, "best_of": 2},
    "nothing asked": {"max_tokens": 0},
    "huge number": {"temperature": 1e308},
    "huge prompt": {"prompt": "fox " * 200_000},
    "log-probabilities": {"prompt": ["a"] * 8, "n": 20, "logprobs": 20, "max_tokens": 600},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_4xx_and_say_why(client, reader, name):
    response = client.post("/v1/completions", json={"prompt": "a", "max_tokens": 2, **BAD[name]})
    assert 400 <= response.status_code < 500, response.text
    assert len(response.json()["error"]["message"]) < 400
    assert reader.asked == []


@pytest.mark.parametrize(
    ("sent", "headers", "status"),
    [
        (b'{"prompt": "a"', JSON, 400),
        (b"", JSON, 400),
        (b"null", JSON, 400),
        (b'{"prompt": "\xff"}', JSON, 400),
        (b'{"prompt": "\\ud800"}', JSON, 400),
        (b'{"prompt": "a", "temperature": NaN}', JSON, 400),
        (b'{"prompt": "a", "temperature": 1e999}', JSON, 400),
        (b'{"prompt": ' + b"[" * 100_000, JSON, 400),
        (b'{"guided_json": ' + b'{"a":' * 50_000, JSON, 400),
        (b'{"prompt": "a"}', {"Content-Type": "text/plain"}, 415),
        (b'{"prompt": "a"}', {}, 415),
        (b'{"prompt": "%s"}' % (b"a" * (5 << 20)), JSON, 413),
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/completions", "/v1/chat/completions", "/v1/rewards", "/score"]
)
def test_bad_bodies_are_4xx(client, path, sent, headers, status):
    assert client.post(path, content=sent, headers=headers).status_code == status


MANY = 100_000
COSTLY = {  # bodies of which each part costs a little, and all of them seconds
    "stops": (TextRequest, {"prompt": "a", "stop": [1] * MANY}),
    "stop ids": (TextRequest, {"prompt": "a", "stop_token_ids": ["a"] * MANY}),
    "keys": (TextRequest, {"prompt": "a", **{f"k{i}": 1 for i in range(MANY)}}),
    "inner keys": (TextRequest, {"prompt": "a", "stream_options": {f"k{i}": 1 for i in range(99)}}),
    "prompts": (TextRequest, {"prompt": [["a"]] * MANY}),
    "messages": (ChatRequest, {"messages": [1] * MANY}),
    "answers": (RewardRequest, {"messages": MESSAGES, "answers": [1] * MANY}),
    "texts": (ScoreRequest, {"text_1": "a", "text_2": [1] * MANY}),
}


@pytest.mark.parametrize("name", COSTLY)
def test_the_first_fault_of_a_body_is_enough(name):
    kind, body = COSTLY[name]
    with pytest.raises((Problem, ValidationError)) as failed:
        kind.model_validate(body)
    assert isinstance(failed.value, Problem) or failed.value.error_count() <= 3


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": ["fox dog " * 4000] * 120}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "fox " * 9000}]}),
        ("/generate", {"sentences": ["fox dog " * 4000] * 120}),
        ("/score", {"text_1": "a", "text_2": ["fox dog " * 4000] * 120}),
    ],
)
def test_what_cannot_fit_is_refused_before_it_is_encoded(app_of, path, body, monkeypatch):
    client, encoded = TestClient(app_of()), []
    monkeypatch.setattr(Tokenizer, "encode", lambda *_: encoded.append(1) or [])
    method = "PUT" if path == "/generate" else "POST"
    response = client.request(method, path, json=body)
    assert response.status_code == 400 and "has at least" in response.text
    assert not encoded


GRAMMARS = {  # what no text keeps to, and what only shows while it is drawn
    "nothing": {"guided_regex": "[^\\x00-\\U0010FFFF]"},
    "endless": {"guided_json": {"$ref": "#"}},
    "nested counts": {"guided_regex": "(((a{1000}){1000}){1000})"},
}


@pytest.mark.parametrize("name", GRAMMARS)
def test_a_grammar_that_fails_fails_alone(app_of, name):
    """In the middle of a batch, too: the others' answers go on."""

    async def both():
        transport = httpx2.ASGITransport(app_of())
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            body = {"prompt": "The fox", "max_tokens": 300, "ignore_eos": True}
            other = asyncio.ensure_future(client.post("/v1/completions", json=body))
            await asyncio.sleep(0.05)
            bad = await client.post("/v1/completions", json={**body, **GRAMMARS[name]})
            return bad, await other

    bad, other = asyncio.run(both())
    assert bad.status_code == 400 and "grammar: " in bad.json()["error"]["message"]
    assert other.json()["usage"]["completion_tokens"] == 300


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inside: st.lists(inside, max_size=3)
    | st.dictionaries(st.text(max_size=4), inside, max_size=3),
    max_leaves=6,
)  # fmt: skip
FIELDS = {
    "/v1/completions": ("prompt", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed",
                        "stop", "stop_token_ids", "n", "best_of", "stream", "stream_options",
                        "echo", "logprobs", "response_format", "guided_json", "guided_regex",
                        "min_tokens",
                        "structured_outputs", "ignore_eos", "repetition_penalty", "model", "tools"),
    "/v1/chat/completions": ("messages", "max_completion_tokens", "logprobs", "top_logprobs", "n",
                             "stream", "response_format", "model", "tool_choice", "stop"),
    "/v1/rewards": ("messages", "answers", "model"),
    "/score": ("text_1", "text_2", "model"),
    "/generate": ("sentences", *(row.key for row in ROWS)),
}  # fmt: skip
WHOLE = {
    "/v1/completions": {"prompt": "a", "max_tokens": 2},
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 2},
    "/v1/rewards": {"messages": [*MESSAGES, {"role": "assistant", "content": "b"}]},
    "/score": {"text_1": "a", "text_2": "b"},
    "/generate": {"sentences": ["a"], "tokens_to_generate": 2},
}


@pytest.fixture
def small(app_of):
    return TestClient(app_of(context_tokens=48))


def fuzz(client, path, body):
    method = "PUT" if path == "/generate" else "POST"
    sent = json.dumps(body).encode("utf-8", "surrogatepass")
    response = client.request(method, path, content=sent, headers=JSON)
    assert response.status_code < 500, (body, response.text)
    if response.status_code >= 400:
        said = response.json()
        assert isinstance(said, str) if path == "/generate" else said["error"]["message"]


@pytest.mark.parametrize("path", WHOLE)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_in_any_field_is_answered_without_a_5xx(small, path, data):
    changed = data.draw(st.dictionaries(st.sampled_from(FIELDS[path]), ANYTHING, max_size=3))
    fuzz(small, path, {**WHOLE[path], **changed})


CHECKS = {
    # what a model's context or vocabulary forbids, no schema can say
    "positive_data_acceptance": {"enabled": False},
    "negative_data_rejection": {"expected-statuses": ["400", "404", "405", "413", "415"]},
}


def walk(app, examples):
    """Every operation of the OpenAPI document, with data that it allows and that it does not."""
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json", app, config=SchemathesisConfig.from_dict({"checks": CHECKS})
    )
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 8
    for operation in operations:
        for mode in schemathesis.GenerationMode:
            if mode.is_negative and not list(operation.body):
                continue  # nothing there to be wrong

            @settings(
                max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck),
                derandomize=True, database=None,
            )  # fmt: skip
            @given(case=operation.as_strategy(generation_mode=mode))
            def holds(case):
                case.call_and_validate(excluded_checks=[])

            holds()


def test_the_openapi_document_holds_what_it_promises(app_of):
    walk(app_of(context_tokens=48), examples=15)


@pytest.mark.slow
def test_the_openapi_document_holds_under_many_requests(app_of):
    walk(app_of(context_tokens=48), examples=200)
