"""NeMo's wire: its validation table row by row, its response, the published client's calls."""

import re

import pytest
from fastapi.testclient import TestClient

from flywright.ask import Completion, Sampling, Scripted
from flywright.serve import ServeSettings, create_app
from flywright.tokenizer import chat

NUMBER = "temperature must be a positive number less than or equal to 100.0"
ROWS = [
    ({"sentences": ["x"] * 129}, "Maximum number of sentences is 128"),
    ({"task_ids": [1]}, "task_ids cannot be used: no prompt-tuned tasks here"),
    *[
        ({"tokens_to_generate": bad}, "tokens_to_generate must be an integer greater than 0")
        for bad in (0, -1, 1.0, "8", None)
    ],
    ({"all_probs": 1}, "all_probs must be a boolean value"),
    *[({"temperature": bad}, NUMBER) for bad in (0, -1, 100.5, "1", True, None)],
    ({"add_BOS": "no"}, "add_BOS must be a boolean value"),
    ({"greedy": 0}, "greedy must be a boolean value"),
    ({"top_k": -1}, "top_k must be a positive integer number"),
    ({"top_k": True}, "top_k must be a positive integer number"),
    ({"top_p": 1.1}, "top_p must be a positive number less than or equal to 1.0"),
    ({"top_p": -0.1}, "top_p must be a positive number less than or equal to 1.0"),
    (
        {"repetition_penalty": 0.99},
        "repetition_penalty must be a positive number no less than 1.0",
    ),
    ({"end_strings": "a"}, "expect end_strings to be a list of strings"),
    ({"end_strings": ["a", 1]}, "expect end_strings to be a list of strings"),
    (
        {"min_tokens_to_generate": -1},
        "min_tokens_to_generate must be an integer no less than 0",
    ),
    ({"neighbors": -1}, "num of neighbors must be an integer no less than 0"),
    ({"compute_logprob": None}, "compute_logprob must be a boolean value"),
    ({"random_seed": -1}, "random_seed must be a positive integer number or None"),
    ({"random_seed": 1.5}, "random_seed must be a positive integer number or None"),
]


class Replying:
    """A completer with token ids and log-probabilities, that remembers what it was asked."""

    model = "replying"

    def __init__(self, tokenizer, text, end):
        self.tokenizer = tokenizer
        self._ids = (*tokenizer.encode(text), *end)
        self.text = text.removesuffix("\n")
        self.asked: list[tuple[object, Sampling]] = []

    async def complete(self, prompt, sampling):
        self.asked.append((prompt, sampling))
        logprobs = tuple(-0.5 for _ in self._ids)
        return Completion(self.text, token_ids=self._ids, logprobs=logprobs)

    async def stream(self, prompt, sampling):
        yield await self.complete(prompt, sampling)

    async def read(self, ids, top=0):
        likely = tuple((token, -float(token)) for token in range(top))
        return Completion(
            "", "stop", tuple(ids), (-0.25,) * (len(ids) - 1), top=(likely,) * (len(ids) - 1)
        )

    async def logprobs(self, context, continuations):
        raise NotImplementedError


@pytest.fixture
def replying(tokenizer):
    return Replying(tokenizer, "A fox.\n", [tokenizer.extra_ids[1]])


@pytest.fixture
def client(tokenizer, replying):
    return TestClient(create_app(replying, tokenizer))


def put(client, **body):
    return client.put("/generate", json={"sentences": ["The fox"], **body})


@pytest.mark.parametrize(("bad", "message"), ROWS)
def test_each_row_of_the_table(client, tokenizer, replying, bad, message):
    response = put(client, **bad)
    assert (response.status_code, response.json()) == (400, message)
    strict = TestClient(create_app(replying, tokenizer, None, ServeSettings(nemo_strict=True)))
    response = put(strict, **bad)
    assert response.json() == message
    assert response.status_code == (400 if "sentences" in bad else 200)
    assert replying.asked == []


def test_the_first_failure_in_nemos_order_wins(client):
    assert put(client, random_seed=-1, greedy=3, top_k=-1).json() == (
        "greedy must be a boolean value"
    )
    assert put(client, random_seed=-1, temperature=0, tokens_to_generate=0).json() == (
        "tokens_to_generate must be an integer greater than 0"
    )


def test_missing_or_wrong_sentences(client, tokenizer, replying):
    assert client.put("/generate", json={}).status_code == 400
    strict = TestClient(create_app(replying, tokenizer, None, ServeSettings(nemo_strict=True)))
    assert strict.put("/generate", json={}).status_code == 500
    for bad in ("text", [], [1], [""], None, {"a": 1}):
        assert put(client, sentences=bad).status_code == 400


def test_true_is_no_integer_except_where_the_original_says_so(client, tokenizer, replying):
    assert put(client, tokens_to_generate=True).status_code == 400
    strict = TestClient(create_app(replying, tokenizer, None, ServeSettings(nemo_strict=True)))
    assert "sentences" in put(strict, tokens_to_generate=True).json()
    message = "tokens_to_generate must be an integer greater than 0"
    assert put(strict, tokens_to_generate=False).json() == message  # an integer there, but 0


def test_unknown_and_useless_keys_are_logged_and_the_request_continues(client, caplog):
    def logged(**body):
        caplog.clear()
        assert put(client, **body).status_code == 200
        return [record.getMessage() for record in caplog.records if "flywright" in record.name]

    [said] = logged(**{"bad\nkey": 1})
    assert said == "The request key 'bad\\nkey' is not allowed"
    assert logged(compute_logprob=True) == []
    assert logged(min_tokens_to_generate=2, repetition_penalty=2, neighbors=1) == [
        "neighbors=1 has no effect on this server"
    ]


def test_the_penalty_by_our_rule_and_by_the_originals(client, tokenizer, replying):
    strict = TestClient(create_app(replying, tokenizer, None, ServeSettings(nemo_strict=True)))

    def penalty(who, **body):
        assert put(who, **body).status_code == 200
        return replying.asked[-1][1].repetition_penalty

    assert penalty(client) == penalty(client, greedy=True, repetition_penalty=2) == 1.0
    assert penalty(client, repetition_penalty=1.5) == 1.5
    assert penalty(strict, repetition_penalty=1.5) == 1.0
    assert penalty(strict, repetition_penalty=1.5, compute_logprob=True) == 1.5
    assert penalty(strict, compute_logprob=True) == 1.2


def test_only_put_on_generate_and_no_put_at_the_root(client):
    assert client.put("/").status_code == 405
    for method in ("get", "post", "delete", "patch"):
        assert getattr(client, method)("/generate").status_code == 405


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"", 400),
        (b"[1]", 400),
        (b'{"sentences": ["\xff"]}', 400),
        (b'{"sentences": ["a"], "temperature": NaN}', 400),
        (b"[" * 100_000, 400),
    ],
)
def test_bad_bodies_are_a_string_with_a_4xx(client, content, status):
    headers = {"Content-Type": "application/json"}
    response = client.put("/generate", content=content, headers=headers)
    assert response.status_code == status
    assert isinstance(response.json(), str)


def test_a_plain_form_is_not_read(client):
    response = client.put("/generate", content=b'{"sentences": ["a"]}')
    assert response.status_code == 415


def test_defaults_and_greedy(client, replying):
    put(client)
    sampling = replying.asked[-1][1]
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 0.9, 0)
    assert (sampling.max_tokens, sampling.stop) == (64, ())
    assert (sampling.end_ids, sampling.min_tokens) == ((replying.tokenizer.eos_id,), 0)
    put(client, greedy=True, temperature=5, top_p=0.1, top_k=3, end_strings=["<|endoftext|>", "x"])
    sampling = replying.asked[-1][1]
    assert (sampling.greedy, sampling.top_p, sampling.top_k, sampling.stop) == (
        (True, 1.0, 0, ("x",))
    )


def test_seed_makes_the_same_seeds_and_rows_differ(client, replying):
    for _ in range(2):
        put(client, sentences=["a", "b"], random_seed=7)
    seeds = [sampling.seed for _, sampling in replying.asked]
    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]
    put(client)
    put(client)
    assert replying.asked[-1][1].seed != replying.asked[-2][1].seed


def test_response_shape(client, tokenizer):
    prompt = "<extra_id_0>System\n\n<extra_id_1>User\nThe fox"
    value = put(client, sentences=[prompt], compute_logprob=True).json()
    assert value["sentences"] == [prompt + "A fox.\n<extra_id_1>"]
    ids = value["token_ids"][0]
    before = chat.raw_ids(tokenizer, prompt)
    assert ids[: len(before)] == before
    assert before[0] == tokenizer.extra_ids[0]
    assert value["tokens"][0] == [tokenizer.piece(i) for i in ids]
    assert len(value["logprob"][0]) == len(ids) - 1
    after = len(ids) - len(before)
    assert value["logprob"][0] == [-0.25] * (len(before) - 1) + [-0.5] * after
    assert "full_logprob" not in value
    full = put(client, sentences=[prompt], all_probs=True).json()["full_logprob"][0]
    assert (len(full), len(full[0]), full[3][7]) == (len(ids) - 1, tokenizer.vocab_size, -7.0)
    offsets = value["offsets"][0]
    assert offsets[:2] == [0, 0]  # <extra_id_0> has no width
    assert len(offsets) == len(ids)
    without = re.sub(r"<extra_id_\d>", "", value["sentences"][0])
    assert offsets[-1] == len(without)  # the closing <extra_id_1> starts where the text ends
    assert put(client).json()["logprob"] is None


def test_offsets_count_a_character_in_bytes_once(client, tokenizer):
    value = put(client, sentences=["a漢b"]).json()
    starts = dict(zip(value["tokens"][0], value["offsets"][0], strict=True))
    assert (starts["a"], starts["b"]) == (0, 2)


def test_bos_is_sent_but_not_shown(client, tokenizer, replying):
    value = put(client, add_BOS=True).json()
    assert value["token_ids"][0][0] == tokenizer.bos_id
    assert value["sentences"][0].startswith("The fox")
    assert replying.asked[-1][0] == (tokenizer.bos_id, *tokenizer.encode("The fox"))


def test_length_is_clipped_to_the_context_and_a_full_context_refused(tokenizer, replying):
    client = TestClient(create_app(replying, tokenizer, None, ServeSettings(context_tokens=40)))
    assert put(client, tokens_to_generate=1000).status_code == 200
    used = len(tokenizer.encode("The fox"))
    assert replying.asked[-1][1].max_tokens == 40 - used
    response = put(client, sentences=["fox " * 100])
    assert response.status_code == 400
    assert "the context holds 40" in response.json()


def test_works_where_the_completer_reports_no_ids(tokenizer):
    client = TestClient(create_app(Scripted(lambda prompt, _: f"[{prompt}]"), tokenizer))
    value = put(client).json()
    assert value["sentences"] == ["The fox[The fox]"]
    assert value["token_ids"] == [tokenizer.encode("The fox") + tokenizer.encode("[The fox]")]


def test_more_probabilities_than_one_answer_may_hold_are_refused(client, tokenizer, replying):
    asked = {"all_probs": True, "tokens_to_generate": 2_000_000 // tokenizer.vocab_size // 4}
    assert (
        put(client, sentences=["a"] * 4, **asked).json().startswith("all_probs: ")
        and not replying.asked
    )


def test_log_probabilities_that_the_model_cannot_tell_are_refused(tokenizer):
    client = TestClient(create_app(Scripted(lambda *_: "x"), tokenizer))
    for key in ("compute_logprob", "all_probs"):
        response = put(client, **{key: True})
        assert response.status_code == 400 and response.json().startswith(key)
