"""The fake endpoint: deterministic, shaped as flows need it, with faults that clients survive."""

import asyncio
import json
import re
import time
from pathlib import Path

import httpx2
import pytest

from flywright.ask import AskError, Sampling
from flywright.errors import UserError
from flywright.judge import prompts
from flywright.judge.instructions import CHECKERS
from flywright.judge.truth import followed
from flywright.records import ATTRIBUTES, Conversation, Lineage, Prompt
from flywright.serve import HttpCompleter, HttpScorer, create_fake_app
from flywright.serve.fake import parse_faults
from flywright.serve.fake_answers import fake_answer
from flywright.synth import SynthSettings, parse
from flywright.synth.instructions import instructed
from flywright.synth.wording import FOLDER

NOT_ASKED = (
    "likelier",
    "join",
    "lasting",
    "wordings",
    "methods",
    "personalities",
    "toolbox",
    "again",
)  # parts of other prompts
TEMPLATES = [*FOLDER.glob("*.txt"), *(Path(prompts.__file__).parent / "templates").glob("*.txt")]
ASKING = sorted(path for path in TEMPLATES if not path.stem.endswith(NOT_ASKED))
LIST = 'Name {n} broad topics that people talk about.\nAnswer with a numbered list, like "1. ...".'


def ask(base, text, **sampling):
    client = HttpCompleter(base, "fake-llm")
    return asyncio.run(client.complete(Conversation.of(text), Sampling(**sampling)))


def test_same_seed_same_answers_other_seed_others(live):
    first, second, other = (
        f"http://127.0.0.1:{live(create_fake_app(seed=seed))}" for seed in (1, 1, 2)
    )
    prompt = LIST.format(n=6)
    assert ask(first, prompt).text == ask(second, prompt).text != ask(other, prompt).text
    # greedy answers do not depend on the request's seed, drawn ones do
    assert ask(first, prompt, seed=3).text == ask(first, prompt).text
    drawn = [ask(first, prompt, temperature=1.0, seed=seed).text for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]


FILLED = {
    "count": 4, "code": "```python\ndef f(x):\n    return x\n```", "school_level": "middle school",
    "history": 'User: Write a numbered list.\nAssistant: [[A]] "Verdict: No"',
    "first": "1. a numbered list in JSON", "second": "[[4]]", "difficulty": "beginner",
}  # fmt: skip


def fill(path):
    """A template with words that name shapes in the places of the texts that it is about."""
    marks = r"{(\w+)}" if path.parent.parent.name == "synth" else r"\$(\w+)"
    return re.sub(marks, lambda mark: str(FILLED.get(mark[1], "the sea")), path.read_text().strip())


READ_BY = {  # who reads the reply to a template, and gives what it wanted or raises
    "[numbered list]": lambda reply: parse.numbered(reply, 4),
    "[Write only the code]": lambda reply: compile(parse.code(reply), "code", "exec"),
    "[assert lines]": lambda reply: parse.asserts(reply, 4)[3],
    "[Verdict: Yes]": lambda reply: ["Verdict: No", "Verdict: Yes"].index(reply.splitlines()[-1]),
    "[[A]]": lambda reply: re.findall(r"\n\[\[[ABC]\]\]$", reply)[0],
    "[[4]]": lambda reply: 1 <= int(re.findall(r"\n\[\[(\d+)\]\]$", reply)[0]) <= 10 or 1 / 0,
}


@pytest.mark.parametrize("path", ASKING, ids=lambda path: path.stem)
def test_every_template_gets_what_its_reader_wants(path):
    asked = fill(path)
    readers = [read for mark, read in READ_BY.items() if mark[1:-1] in path.read_text()[-150:]]
    for seed in range(20):
        said = fake_answer(asked, seed)
        assert said.strip()
        for read in readers[:1]:
            read(said)


def test_extra_sources_get_turns_results_refusals_and_calls():
    asked = (FOLDER / "tf_distractors.txt").read_text().replace("{count}", "3")
    said = fake_answer(asked.replace("{talk}", "[2] bot: Hello.\n[4] bot: Yes."), 1)
    made = parse.json_in(said, list)
    assert len(made) == 2 and {one["turn"] for one in made} <= {2, 4}
    asked = (FOLDER / "tools_answer.txt").read_text().replace("{result}", '{"sum": 41}')
    said = [fake_answer(asked, seed) for seed in range(40)]
    assert sum("41" in one for one in said) > 30
    refused = [fake_answer((FOLDER / "incapable_refusal.txt").read_text(), n) for n in range(40)]
    assert 25 < sum("can't" in one for one in refused) < 40


@pytest.mark.parametrize("count", [1, 7, 20])
def test_lists_have_the_length_asked_for(count):
    topics = parse.numbered(fake_answer(LIST.format(n=count), seed=0), count)
    problems = parse.numbered(
        fake_answer(LIST.format(n=count).replace("topics", "tasks"), 0), count
    )
    assert len({*topics, *problems}) == 2 * count
    assert max(map(len, topics)) < 60 < max(map(len, problems))  # names, and whole requests


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ('Lines start with "user:" or "bot:". Write 4 turns.', r"(?:user: .+\nbot: .+\n?){4}"),
        ("Answer yes or no.", r"(?:Yes|No)\."),
        ("Which one?\nA. a\nB. b\nC. c\nThe letter only.", "[A-D]"),
        ("From 0 to 4, how good is it?\nScore: <number>", r".+\nScore: [0-4]"),
        ("Verdict: A, B or tie", r".+\nVerdict: (?:A|B|tie)"),
        ("[[A>>B]] [[A>B]] [[A=B]] [[B>A]] [[B>>A]]", r".+\n\[\[[AB][>=]+[AB]\]\]"),
        ("Write only the user's next message.", r".+"),
        ("Think, then end with \\boxed{}", r"(?s).+\\boxed\{\d+\}\."),
    ],
)
def test_shapes_by_what_is_asked(asked, wanted):
    said = [fake_answer(asked, seed) for seed in range(30)]
    assert all(re.fullmatch(wanted, text) for text in said)
    assert len(set(said)) > 1


def test_json_like_the_example_by_named_keys_and_as_a_tools_call():
    like = json.loads(fake_answer('JSON, e.g. {"score": 9, "ok": true, "why": ["x", "y"]}', 0))
    assert 1 <= like["score"] <= 5 and type(like["ok"]) is bool and len(like["why"]) == 2
    named = json.loads(fake_answer('A JSON list of objects with "question" and "answer".', 0))
    assert [*named[0]] == ["question", "answer"]
    tool = {"name": "weather", "parameters": {"properties": {"city": {"enum": ["Rome", "Oslo"]}}}}
    asked = f'Tools: [{json.dumps(tool)}]\nOne call as JSON: {{"name": ..., "arguments": ...}}'
    call = json.loads(fake_answer(asked, 0))
    assert call["name"] == "weather" and call["arguments"]["city"] in ("Rome", "Oslo")


def test_code_runs_and_its_asserts_hold():
    code = fake_answer("Write only the code, in a block between ```python and ```.", 0)
    asserts = parse.asserts(fake_answer(f"Write 3 Python assert lines.\n{code}", 0), 9)
    assert len(asserts) == 3
    exec("\n".join([parse.code(code), *asserts]), {})


def test_most_answers_obey_the_instructions_that_can_be_checked():
    """Of each kind that the pipeline asks for; some always fail, as a model's answers do."""
    prompts = [Prompt(id=str(n), conversation=Conversation.of("Tell me of the sea and its fish."),
                      task="t", lineage=Lineage(source="t")) for n in range(40)]  # fmt: skip
    obeyed = {}
    for kind in CHECKERS:
        asked = instructed(prompts, SynthSettings(instruction_kinds=(kind,)), seed=1)
        told = [followed(prompt, fake_answer(prompt.conversation.last, 0)) for prompt in asked]
        obeyed[kind] = sum(map(all, told)) / len(told)
    assert sum(share > 0.3 for share in obeyed.values()) >= 23, obeyed
    assert 0.5 < sum(obeyed.values()) / len(obeyed) < 1


def test_rewards_and_discovery(live):
    base = f"http://127.0.0.1:{live(create_fake_app())}"
    attributes = asyncio.run(HttpScorer(base).score(Conversation.of("Hi", "Hello")))
    assert tuple(attributes) == ATTRIBUTES
    assert HttpCompleter(base).model == "fake-llm"


@pytest.mark.parametrize(
    ("fault", "said"),
    [("rate429", "429"), ("error500", "500"), ("badjson", "not JSON")],
)
def test_faults_are_retryable_ask_errors(live, fault, said):
    base = f"http://127.0.0.1:{live(create_fake_app([f'{fault}=1']))}"
    with pytest.raises(AskError, match=said) as failed:
        ask(base, "Hi")
    assert failed.value.retryable
    assert failed.value.retry_after_seconds == (1.0 if fault == "rate429" else 0.0)


def test_truncate_and_hang(live):
    cut = ask(f"http://127.0.0.1:{live(create_fake_app(['truncate=1']))}", LIST.format(n=5))
    assert cut.finish == "length"
    base = f"http://127.0.0.1:{live(create_fake_app(['hang=1']))}"
    client = HttpCompleter(base, "fake-llm", timeout_seconds=0.1)
    with pytest.raises(AskError) as failed:
        asyncio.run(client.complete("Hi", Sampling()))
    assert failed.value.retryable


def test_a_fault_strikes_by_attempt_so_that_a_retry_can_succeed(live):
    async def outcomes(base):
        client = HttpCompleter(base, "fake-llm")
        results = []
        for text in "abcdef" * 4:
            try:
                results.append((await client.complete(text, Sampling())).text)
            except AskError:
                results.append(None)
        return results

    apps = (create_fake_app(["error500=0.5"], seed=3) for _ in range(2))
    first, second = (asyncio.run(outcomes(f"http://127.0.0.1:{live(app)}")) for app in apps)
    assert None in first
    assert any(first)
    assert first == second
    by_text = [first[index::6] for index in range(6)]
    assert any(None in tries and any(tries) for tries in by_text)  # struck once, answered later


def call(base, body, path="/v1/chat/completions"):
    return httpx2.post(
        f"{base}{path}", json={"messages": [{"role": "user", "content": "Hi"}]} | body
    )


def test_a_dropped_connection_a_refusal_wrong_usage_and_a_garbled_list(live):
    bases = {
        fault: f"http://127.0.0.1:{live(create_fake_app([f'{fault}=1']))}"
        for fault in ("drop", "refuse", "usage", "garble")
    }
    with pytest.raises(httpx2.RemoteProtocolError):
        call(bases["drop"], {})
    assert "can't help" in ask(bases["refuse"], "Hi").text
    assert call(bases["usage"], {}).json()["usage"]["prompt_tokens"] == -1
    with pytest.raises(Exception, match="list too short"):
        parse.numbered(ask(bases["garble"], LIST.format(n=5)).text, 5)


def test_logprobs_stops_choices_and_other_models(live):
    base = f"http://127.0.0.1:{live(create_fake_app())}"
    client = HttpCompleter(base, "fake-llm")
    values = asyncio.run(client.logprobs("The better answer is answer", [" A", " B"]))
    assert values[0] != values[1] and max(values) < 0

    def texts(**body):
        return [one["message"]["content"] for one in call(base, body).json()["choices"]]

    assert "." not in texts(stop=["."])[0] and "." in texts()[0]
    assert len({*texts(n=2, temperature=1), *texts(model="a"), *texts(model="b")}) == 4
    assert call(base, {"stream": True}).status_code == 400


def test_paid_calls_are_counted_and_callers_wait_for_a_slot(live):
    base = f"http://127.0.0.1:{live(create_fake_app(['rate429=0.5'], latency='0.15', slots=2))}"

    async def crowd():
        async with httpx2.AsyncClient() as client:
            bodies = [{"messages": [{"role": "user", "content": f"{n % 9}"}]} for n in range(12)]
            posts = [client.post(f"{base}/v1/chat/completions", json=body) for body in bodies]
            tasks = [asyncio.ensure_future(post) for post in posts]
            await asyncio.sleep(0.1)
            gauges = await client.get(f"{base}/metrics")
            return [reply.status_code for reply in await asyncio.gather(*tasks)], gauges.text

    statuses, gauges = asyncio.run(crowd())
    paid = statuses.count(200)
    assert 0 < paid < 12 and set(statuses) == {200, 429}
    assert 'vllm:num_requests_running{model_name="fake-llm"} 2.0' in gauges
    assert f'vllm:num_requests_waiting{{model_name="fake-llm"}} {float(paid - 2)}' in gauges
    assert 'vllm:kv_cache_usage_perc{model_name="fake-llm"} 1.0' in gauges
    counts = call(base, {}, "/counts").json()  # POST: what was counted, and from zero again
    assert counts["total"] == paid == counts["distinct"] + counts["repeated"]
    assert counts["ends"] == {"ok": paid, "rate429": 12 - paid}
    assert httpx2.get(f"{base}/counts").json()["total"] == 0


@pytest.mark.parametrize("spec", ["0.01", "0.01:0.03", "~0.01:0.5"])
def test_latencies_are_drawn_by_request(live, spec):
    base = f"http://127.0.0.1:{live(create_fake_app(latency=spec))}"
    started = time.monotonic()
    ask(base, "Hi")
    assert time.monotonic() - started >= (0 if "~" in spec else 0.01)
    with pytest.raises(UserError, match="--latency"):
        create_fake_app(latency=spec + "x")


def test_unknown_faults_are_named():
    assert parse_faults(["hang", "rate429=0.5"]) == {"hang": 0.1, "rate429": 0.5}
    for bad in ("fire", "hang=2", "hang=x"):
        with pytest.raises(UserError, match="--fault"):
            parse_faults([bad])
