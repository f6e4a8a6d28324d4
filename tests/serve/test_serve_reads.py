"""OpenAI's wire over a Reader: streams, log-probabilities, echoes, ends, the official client."""

import asyncio
import json

import openai
import pytest
import torch
from fastapi.testclient import TestClient

from flywright.ask import Sampling, Scripted
from flywright.records import Conversation
from flywright.serve import HttpCompleter, create_app
from flywright.tokenizer import chat

HI = [{"role": "user", "content": "The fox"}]


def ask(client, **body):
    body = {"messages": HI, "max_tokens": 12, "temperature": 0, **body}
    return client.post("/v1/chat/completions", json=body)


def text(client, prompt="The quick brown", **body):
    body = {"prompt": prompt, "max_tokens": 12, "temperature": 0, **body}
    return client.post("/v1/completions", json=body)


def events(response):
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = response.text.strip().split("\n\n")
    assert blocks.pop() == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def complete(reader, prompt, **sampling):
    return asyncio.run(reader.complete(prompt, Sampling(**{"max_tokens": 12, **sampling})))


@pytest.mark.parametrize("drawn", [{}, {"temperature": 1.0, "seed": 3, "min_p": 0.01}])
def test_a_streams_parts_are_the_whole_answer(client, reader, drawn):
    whole = ask(client, **drawn).json()
    parts = events(ask(client, **drawn, stream=True, stream_options={"include_usage": True}))
    assert parts[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    said = [one["choices"][0]["delta"].get("content", "") for one in parts if one["choices"]]
    assert "".join(said) == whole["choices"][0]["message"]["content"]
    assert len(said) > 3
    assert parts[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert parts[-1]["usage"] == whole["usage"]
    assert parts[-1]["choices"] == []
    assert all(one["usage"] is None for one in parts[:-1])
    assert len({one["id"] for one in parts}) == 1
    expected = complete(reader, Conversation.of("The fox"), **drawn)
    assert whole["choices"][0]["message"]["content"] == expected.text


def test_a_stream_of_many_texts_keeps_them_apart(client):
    body = {"prompt": ["The fox", "A dog"], "n": 2, "temperature": 1.0, "seed": 5, "logprobs": 1}
    whole = text(client, **body).json()["choices"]
    parts = events(text(client, **body, stream=True))
    echoed = text(client, **body, echo=True).json()["choices"]
    streamed = events(text(client, **body, echo=True, stream=True))
    for index, one in enumerate(echoed):
        mine = [p["choices"][0] for p in streamed if p["choices"][0]["index"] == index]
        told = [start for part in mine for start in part["logprobs"]["text_offset"]]
        assert told == one["logprobs"]["text_offset"]
    for index, one in enumerate(whole):
        mine = [p["choices"][0] for p in parts if p["choices"][0]["index"] == index]
        assert "".join(part["text"] for part in mine) == one["text"]
        assert [part["finish_reason"] for part in mine][-1] == one["finish_reason"]
        told = [token for part in mine for token in part["logprobs"]["tokens"]]
        assert told == one["logprobs"]["tokens"]
    assert len({one["text"] for one in whole}) == 4


def test_chat_logprobs_are_the_models(client, reader):
    [choice] = ask(client, logprobs=True, top_logprobs=3).json()["choices"]
    expected = complete(reader, Conversation.of("The fox"), top_logprobs=3)
    content = choice["logprobs"]["content"]
    assert [row["logprob"] for row in content] == pytest.approx(expected.logprobs)
    assert all(len(row["top_logprobs"]) == 3 for row in content)
    assert all(row["logprob"] == row["top_logprobs"][0]["logprob"] for row in content)  # greedy
    spelt = b"".join(bytes(row["bytes"] or ()) for row in content)
    assert spelt.decode(errors="replace").startswith(choice["message"]["content"][:3])
    assert choice["logprobs"]["content"][0]["bytes"] is not None
    assert (
        ask(client, logprobs=True).json()["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        == []
    )


def as_lm_eval_asks(client, rows, top=1):
    """The body that its `local-completions` model sends for likelihoods."""
    return text(client, rows, max_tokens=1, logprobs=top, echo=True, seed=1234).json()["choices"]


def test_an_echo_tells_how_likely_a_text_is_as_lm_eval_reads_it(client, reader, tokenizer, decoder):
    """Its parse: token_logprobs[context:-1] summed, greedy where each is its row's highest."""
    pairs = [("The quick brown", " fox"), ("And 12", " more foxes"), ("a", "漢")]
    rows = []
    for context, continuation in pairs:
        before, after = tokenizer.encode(context), chat.raw_ids(tokenizer, continuation, True)
        rows.append([*before, *after])
    choices = as_lm_eval_asks(client, rows)
    for (context, continuation), row, choice in zip(pairs, rows, choices, strict=True):
        told = choice["logprobs"]
        length = len(tokenizer.encode(context))
        assert len(told["token_logprobs"]) == len(row) + 1
        assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
        found = sum(told["token_logprobs"][length:-1])
        [expected] = asyncio.run(reader.logprobs(context, [continuation]))
        assert found == pytest.approx(expected)
        top = told["top_logprobs"][length:-1]
        greedy = all(
            p == max(best.values())
            for p, best in zip(told["token_logprobs"][length:-1], top, strict=True)
        )
        after = decoder(torch.tensor([row]))[0, length - 1 : -1].argmax(-1).tolist()
        assert greedy == (after == row[length:])
        assert choice["text"].startswith(context + continuation)


def test_a_greedy_continuation_is_told_to_be_greedy(client, reader, tokenizer):
    answer = complete(reader, "The fox", max_tokens=3, end_ids=())
    row = [*tokenizer.encode("The fox"), *answer.token_ids]
    [choice] = as_lm_eval_asks(client, [row])
    told = choice["logprobs"]
    rows = list(zip(told["token_logprobs"], told["top_logprobs"], strict=True))[-4:-1]
    assert all(p == max(best.values()) for p, best in rows)


def test_an_echo_alone_draws_nothing(client, reader):
    [choice] = text(client, "The fox", max_tokens=0, echo=True, logprobs=0).json()["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("The fox", "length")
    told = choice["logprobs"]
    assert told["top_logprobs"] is None
    assert "".join(told["tokens"]) == "The fox"
    assert told["text_offset"] == [
        len("".join(told["tokens"][:i])) for i in range(len(told["tokens"]))
    ]
    assert reader.asked == []
    [part] = events(text(client, "The fox", max_tokens=0, echo=True, logprobs=0, stream=True))
    assert part["choices"][0]["logprobs"] == told
    assert text(client, max_tokens=0).status_code == 400


def test_our_own_client_reads_likelihoods_from_an_echo(live, app_of, reader):
    client = HttpCompleter(f"http://127.0.0.1:{live(app_of())}", "m")
    texts = [" fox", " dog"]
    found = asyncio.run(client.logprobs("The quick brown", texts))
    assert found == pytest.approx(asyncio.run(reader.logprobs("The quick brown", texts)), abs=1e-4)


def test_ends_and_stops(client, reader, tokenizer):
    free = text(client, ignore_eos=True).json()["choices"][0]
    assert free["finish_reason"] == "length"
    assert reader.asked[-1][1].end_ids == ()
    ids = complete(reader, "The quick brown", end_ids=()).token_ids
    assert text(client, stop_token_ids=[ids[4]]).status_code == 200
    assert reader.asked[-1][1].end_ids == (*chat.end_ids(tokenizer), ids[4])
    one = text(client, ignore_eos=True, stop_token_ids=[ids[4]]).json()
    assert one["usage"]["completion_tokens"] == ids.index(ids[4]) + 1
    assert one["choices"][0]["finish_reason"] == "stop"
    stop = free["text"][3:5]
    cut = text(client, ignore_eos=True, stop=stop).json()["choices"][0]
    assert cut["text"] == free["text"][: free["text"].index(stop)]
    streamed = events(text(client, ignore_eos=True, stop=stop, stream=True))
    assert "".join(one["choices"][0]["text"] for one in streamed) == cut["text"]


def test_numbers_beyond_fp32_are_brought_within_it(client, reader):
    assert ask(client, temperature=1e-300).status_code == 200
    assert reader.asked[-1][1].temperature == 0.0
    body = {"sentences": ["a"], "temperature": 1e-300, "repetition_penalty": 1e300, "top_k": 1e300}
    assert client.put("/generate", json={**body, "tokens_to_generate": 2}).status_code == 200
    sampling = reader.asked[-1][1]
    assert (sampling.temperature, sampling.repetition_penalty) == (0.0, 100.0)
    assert sampling.top_k == 2**31 - 1


def test_fields_reach_the_sampling(client, reader):
    body = {"top_k": 4, "min_p": 0.2, "repetition_penalty": 1.3, "min_tokens": 2, "top_p": 0.9}
    assert ask(client, **body, guided_regex="a+").status_code == 200
    sampling = reader.asked[-1][1]
    assert {name: getattr(sampling, name) for name in body} == body
    assert sampling.grammar == "regex:a+"
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    assert ask(client, response_format=form).status_code == 200
    assert reader.asked[-1][1].grammar == "json:" + json.dumps(schema, separators=(",", ":"))
    assert ask(client, response_format={"type": "json_object"}).status_code == 200
    assert reader.asked[-1][1].grammar == 'json:{"type":"object"}'
    assert ask(client, structured_outputs={"grammar": "start: /a/"}).status_code == 200
    assert reader.asked[-1][1].grammar == "lark:start: /a/"


def test_best_of_is_ranked_by_the_reward_model_or_by_likelihood(client, reader):
    body = {"temperature": 1.0, "seed": 1}
    every = ask(client, n=4, **body).json()["choices"]
    best = ask(client, best_of=4, n=2, **body).json()
    texts = [one["message"]["content"] for one in best["choices"]]
    ranked = sorted((one["message"]["content"] for one in every), key=len)  # verbosity counts less
    assert [len(one) for one in texts] == [len(one) for one in ranked[:2]]
    assert best["usage"]["completion_tokens"] > 24
    answers = text(client, n=4, logprobs=0, **body).json()["choices"]
    [likely] = text(client, best_of=4, **body).json()["choices"]

    def mean(one):
        return sum(one["logprobs"]["token_logprobs"]) / len(one["logprobs"]["token_logprobs"])

    assert likely["text"] == max(answers, key=mean)["text"]


def test_a_completer_that_is_no_reader_streams_one_part(tokenizer):
    client = TestClient(create_app(Scripted(lambda *_: "Hello there", "m"), tokenizer))
    parts = events(ask(client, stream=True))
    assert [one["choices"][0]["delta"].get("content") for one in parts] == ["", "Hello there"]
    refused = [
        ask(client, logprobs=True),
        ask(client, response_format={"type": "json_object"}),
        ask(client, ignore_eos=True),
        text(client, echo=True, logprobs=1),
        text(client, [1, 2]),
        text(client, best_of=2),
    ]
    for response in refused:
        assert response.status_code == 400, response.text
        assert "cannot do that" in response.json()["error"]["message"]


def test_what_fails_before_the_first_part_has_its_status(client):
    assert ask(client, stream=True, guided_regex="(((").status_code == 400
    assert ask(client, stream=True, max_tokens=10**6).status_code == 400


def test_the_official_client(live, app_of, reader):
    base = f"http://127.0.0.1:{live(app_of())}/v1"
    client = openai.OpenAI(base_url=base, api_key="none")
    assert [one.id for one in client.models.list()] == ["m", "judge"]
    assert client.models.retrieve("judge").id == "judge"
    with pytest.raises(openai.NotFoundError, match="not served here"):
        client.models.retrieve("org/other")
    asked = {"model": "m", "messages": HI, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    expected = complete(reader, Conversation.of("The fox")).text
    assert whole.choices[0].message.content == expected
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    parts = client.chat.completions.create(**asked, stream=True)
    assert "".join(p.choices[0].delta.content or "" for p in parts) == expected
    with client.chat.completions.stream(**asked) as stream:
        said = [one.delta for one in stream if one.type == "content.delta"]
    assert "".join(said) == expected
    texts = client.completions.create(model="m", prompt=["The fox", "A dog"], max_tokens=4, n=2)
    assert [one.index for one in texts.choices] == [0, 1, 2, 3]
    # what garak's OpenAICompatible generator asks with, by default
    scan = {"n": 1, "temperature": 0.7, "top_p": 1.0, "stop": ["#", ";"], "max_tokens": 12}
    scan |= {"frequency_penalty": 0.0, "presence_penalty": 0.0, "model": "m", "messages": HI}
    (found,) = client.chat.completions.create(**scan).choices
    assert isinstance(found.message.content, str)
    with pytest.raises(openai.BadRequestError, match="tools is not supported"):
        client.chat.completions.create(
            **asked, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**asked, "model": "other"})


def test_vllms_score_and_many_answers_to_one_prompt(client):
    score = {"text_1": "Hi", "text_2": ["a", "bbbb"]}
    told = client.post("/score", json=score).json()
    values = [row["score"] for row in told["data"]]
    assert values[0] - values[1] == pytest.approx(0.33 * 3)
    assert told["usage"]["prompt_tokens"] > 0
    body = {"messages": [{"role": "user", "content": "Hi"}], "answers": ["a", "bbbb"]}
    rows = client.post("/v1/rewards", json=body).json()["data"]
    assert [row["reward"] for row in rows] == values
    for bad in (
        {"text_1": ["a", "b"], "text_2": ["c"]},
        {"text_1": "a"},
        {"text_1": [], "text_2": []},
    ):
        assert client.post("/score", json=bad).status_code == 400
