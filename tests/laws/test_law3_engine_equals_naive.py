"""Law 3: the engine equals naive decoding, for any batch, arrival order, cache and preemption.

Naive decoding is the slow twin: the whole text through the model for every token. A tie below 1e-5
may go either way, so the engine's own token is what the naive text goes on with. With the compiled
attention an answer is the same, bit for bit, whatever else happens at the same time.
"""

import asyncio
import random

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from flywright.ask import Completion, Sampling
from flywright.generate import Engine, cache, runner
from flywright.generate.answer import Answer
from flywright.generate.pages import PAGE_TOKENS, pages_for
from flywright.model import Decoder
from flywright.tokenizer import Tokenizer, chat
from tiny_model import spec_of, train_tiny

TIE = 1e-5
CONTEXT = 72


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tiny("bcdfghkl", 32, 310, end="")


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Decoder:
    shape = {"hidden_size": 48, "layers": 3, "heads": 6, "ffn_size": 64}
    spec = spec_of(tokenizer, **shape, context_length=CONTEXT)
    decoder = Decoder(spec, seed=11).requires_grad_(False)
    with torch.no_grad():  # answers that end by themselves at very different lengths
        decoder.lm_head.weight[tokenizer.extra_ids[1]] *= 2
    return decoder


def requests(count: int, seed: int, hot: bool) -> list[tuple[str, Sampling]]:
    """Random raw prompts and settings."""
    chance = random.Random(seed)
    made = []
    for index in range(count):
        text = "".join(chance.choices("abcdefghklnotu ", k=chance.randint(1, 45)))
        sampling = Sampling(
            max_tokens=chance.choice([1, 2, 5, 20, 40]),
            temperature=chance.choice([0.0, 0.7, 1.0, 1.5]) if hot else 0.0,
            top_k=chance.choice([0, 0, 5, 40]),
            top_p=chance.choice([1.0, 1.0, 0.6, 0.95]),
            seed=seed * 1000 + index,
        )
        made.append((text, sampling))
    return made


def answers(engine: Engine, asked: list[tuple[str, Sampling]], seed: int) -> list[Completion]:
    """Completions in the order of `asked`; they arrive shuffled, some late."""
    chance = random.Random(seed)
    order = chance.sample(range(len(asked)), len(asked))
    delays = [chance.choice([0, 0, 1, 4]) / 1000 for _ in asked]

    async def one(index: int) -> Completion:
        await asyncio.sleep(delays[index])
        return await engine.complete(*asked[index])

    async def everyone() -> dict[int, Completion]:
        return dict(zip(order, await asyncio.gather(*map(one, order)), strict=True))

    found = asyncio.run(everyone())
    return [found[index] for index in range(len(asked))]


@pytest.fixture(params=["compiled", "gathered"])
def attention(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The compiled attention, and its slow twin of torch's operations."""
    if request.param == "gathered":
        monkeypatch.setattr(cache, "compiled", lambda *_: None)
    return request.param


def check_naive(
    model: Decoder, tokenizer: Tokenizer, text: str, sampling: Sampling, got: Completion
) -> None:
    ids = chat.raw_ids(tokenizer, text) or [tokenizer.eos_id]
    limit = min(sampling.max_tokens, CONTEXT - len(ids))
    ends = chat.end_ids(tokenizer)
    for token, logprob in zip(got.token_ids, got.logprobs, strict=True):
        logits_V = model(torch.tensor([ids]))[0, -1]
        assert logits_V[token] >= logits_V.max() - TIE
        assert logprob == pytest.approx(float(logits_V.log_softmax(-1)[token]), abs=1e-4)
        ids.append(token)
    assert not any(token in ends for token in got.token_ids[:-1])
    assert got.token_ids[-1] in ends or len(got.token_ids) == limit


@pytest.mark.parametrize("max_batch", range(1, 9))
def test_greedy_equals_naive(
    model: Decoder, tokenizer: Tokenizer, max_batch: int, attention: str
) -> None:
    asked = requests(9, seed=max_batch, hot=False)
    got = answers(Engine(model, tokenizer, max_batch), asked, seed=max_batch)
    for (text, sampling), completion in zip(asked, got, strict=True):
        check_naive(model, tokenizer, text, sampling, completion)


def test_samples_do_not_depend_on_the_batch(
    model: Decoder, tokenizer: Tokenizer, attention: str
) -> None:
    asked = requests(12, seed=77, hot=True)
    engines = [Engine(model, tokenizer, size) for size in (1, 2, 5, 12)]
    alone, *others = [answers(engine, asked, seed) for seed, engine in enumerate(engines)]
    assert len({completion.token_ids for completion in alone}) == len(asked)
    for together in others:
        for one, other in zip(alone, together, strict=True):
            assert one.token_ids == other.token_ids
            exact = 0 if engines[0].exact else 1e-5
            assert one.logprobs == pytest.approx(other.logprobs, abs=exact, rel=0)


def test_a_used_slot_leaves_no_trace(model: Decoder, tokenizer: Tokenizer) -> None:
    asked = requests(6, seed=5, hot=True)
    engine = Engine(model, tokenizer, 4)
    first = answers(engine, asked, seed=1)
    answers(engine, requests(10, seed=6, hot=True), seed=2)
    again = answers(engine, asked, seed=3)
    assert [one.token_ids for one in first] == [one.token_ids for one in again]


def test_the_compiled_attention_is_there() -> None:
    """Elsewhere it may be missing; where these tests run, the twin alone would prove little."""
    assert cache.compiled(torch.float32, 6, 2, 16) is not None


BEGINNINGS = ("ban bel cut dob ", "ban bel cut dob nut ban hel bel ", "", "fob " * 12)
ENDINGS = ("", "ban", "cut hel", "dob dob dob dob", "gut kel lob ban bel cut dob fan gel hob")


QUESTIONS = st.tuples(
    st.builds(str.__add__, st.sampled_from(BEGINNINGS), st.sampled_from(ENDINGS)),
    st.builds(
        lambda most, heat, cut, penalty, seed: Sampling(
            most, heat, repetition_penalty=penalty, seed=seed, **cut
        ),
        st.sampled_from([1, 3, 12, 60, 60]),
        st.sampled_from([0.0, 0.0, 1.0]),
        st.sampled_from([{}, {}, {"top_k": 4}, {"min_p": 0.1}, {"min_tokens": 9}]),
        st.sampled_from([1.0, 1.0, 1.3]),
        st.integers(0, 1),
    ),
)


class Load(RuleBasedStateMachine):
    """Requests come, steps go by, callers leave; what is finished is what it is alone."""

    model: Decoder
    tokenizer: Tokenizer
    alone: dict[tuple[str, Sampling], Completion]
    seen: dict[str, int]

    def __init__(self) -> None:
        super().__init__()
        self.engine: Engine | None = None
        self.asked: dict[Answer, tuple[str, Sampling]] = {}

    def opened(self) -> Engine:
        assert self.engine is not None
        return self.engine

    @initialize(
        max_batch=st.integers(2, 6),
        spare=st.integers(0, 5),
        guesses=st.sampled_from([0, 1, 3]),
        step_tokens=st.sampled_from([7, 16, 64]),
    )
    def open(self, max_batch: int, spare: int, guesses: int, step_tokens: int) -> None:
        """An engine with a small cache, whose prompts are computed in pieces."""
        pages = pages_for(CONTEXT) + spare
        held = pages * PAGE_TOKENS * self.model.spec.kv_bytes_per_token(4)
        runner.STEP_TOKENS = step_tokens
        self.engine = Engine(
            self.model, self.tokenizer, max_batch, cache_bytes=held, guesses=guesses
        )

    @rule(asked=st.lists(QUESTIONS, min_size=1, max_size=5))
    def ask(self, asked: list[tuple[str, Sampling]]) -> None:
        """Some more answers to draw."""
        for text, how in asked:
            request = self.opened()._answer(text, how)
            self.asked[request] = (text, how)
            self.opened()._runner.scheduler.waiting.append(request)

    @rule(steps=st.integers(1, 25))
    def go_on(self, steps: int) -> None:
        """Some steps go by."""
        for _ in range(steps):
            self.opened()._runner._step()

    @rule(which=st.integers(0, 50))
    def cancel(self, which: int) -> None:
        """A caller leaves."""
        if self.asked:
            request = list(self.asked)[which % len(self.asked)]
            if request.future.cancel():
                del self.asked[request]

    @invariant()
    def pages_are_counted(self) -> None:
        """No page is lost, none is held by nobody."""
        if self.engine is not None:  # invariants are looked at before it opens, too
            scheduler = self.engine._runner.scheduler
            held = {page for request in scheduler.running for page in request.pages}
            assert scheduler.pages.free + len(held) == scheduler.pages.count

    @invariant()
    def what_is_finished_is_right(self) -> None:
        for request, (text, how) in list(self.asked.items()):
            if request.future.done():
                self.compare(text, how, request.future.result())
                del self.asked[request]

    def teardown(self) -> None:
        while self.engine is not None and self.engine._runner.scheduler.busy:
            self.engine._runner._step()
        self.what_is_finished_is_right()
        assert not self.asked
        if self.engine is not None:
            for name, count in self.engine.stats().items():
                self.seen[name] = self.seen.get(name, 0) + count

    def compare(self, text: str, how: Sampling, got: Completion) -> None:
        if (text, how) not in self.alone:
            runner.STEP_TOKENS = 512
            alone = Engine(self.model, self.tokenizer, max_batch=1)
            self.alone[text, how] = asyncio.run(alone.complete(text, how))
            if how.greedy and how.repetition_penalty == 1 and not how.min_tokens:
                check_naive(self.model, self.tokenizer, text, how, got)
        assert got == self.alone[text, how]


def test_any_load_gives_what_one_request_alone_gets(
    model: Decoder, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "STEP_TOKENS", 512)
    Load.model, Load.tokenizer, Load.alone, Load.seen = model, tokenizer, {}, {}
    run_state_machine_as_test(
        Load,
        settings=settings(
            max_examples=40,
            stateful_step_count=12,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert Load.seen["preemptions"] > 20 and Load.seen["reused_tokens"] > 500
