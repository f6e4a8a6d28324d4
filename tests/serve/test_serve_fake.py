"""The fake endpoint: deterministic, shaped as flows need it, with faults that clients survive."""

import asyncio
import re

import pytest

from flywright.ask import AskError, Sampling
from flywright.errors import UserError
from flywright.records import ATTRIBUTES, Conversation
from flywright.serve import HttpCompleter, HttpScorer, create_fake_app
from flywright.serve.fake import parse_faults
from flywright.serve.fake_answers import fake_answer

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


@pytest.mark.parametrize("count", [1, 7, 20])
def test_lists_have_the_length_asked_for(count):
    items = re.findall(r"^\d+\. (.+)$", fake_answer(LIST.format(n=count), seed=0), re.MULTILINE)
    assert len(set(items)) == count
    assert not any(item.endswith("?") for item in items)
    problems = fake_answer("Set 2 problems on this topic: sums\nAnswer with a numbered list.", 0)
    assert all(line.endswith("?") for line in problems.splitlines())


def test_shapes_of_answers():
    assert re.search(r"\[\[[ABC]\]\]$", fake_answer("say [[A]] or [[B]] or [[C]]", 0))
    assert re.search(r"\[\[\d\]\]$", fake_answer("for example [[4]]", 0))
    assert fake_answer('last line that is only "Verdict: Yes" or "Verdict: No"', 0).splitlines()[
        -1
    ] in ("Verdict: Yes", "Verdict: No")
    code = fake_answer("Write only the code, in a block between ```python and ```.", 0)
    asserts = fake_answer(f"Write 3 Python assert lines.\n{code}", 0)
    body = code.removeprefix("```python\n").removesuffix("\n```")
    assert len(asserts.splitlines()) == 3
    exec(f"{body}\n{asserts}", {})  # the code runs and its tests hold
    assert fake_answer("What is a fox?", 0) != fake_answer("What is a dog?", 0)


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


def test_unknown_faults_are_named():
    assert parse_faults(["hang", "rate429=0.5"]) == {"hang": 0.1, "rate429": 0.5}
    for bad in ("fire", "hang=2", "hang=x"):
        with pytest.raises(UserError, match="--fault"):
            parse_faults([bad])
