"""Law 3: the engine equals naive decoding, for any batch and arrival order.

Naive decoding is the slow twin: the whole text through the model for every token. A tie below 1e-5
may go either way, so the engine's own token is what the naive text goes on with.
"""

import asyncio
import random

import pytest
import torch

from flywright.ask import Completion, Sampling
from flywright.generate import Engine
from flywright.model import Decoder
from flywright.spec import ModelSpec
from flywright.tokenizer import Tokenizer, chat, train_tokenizer

TIE = 1e-5
CONTEXT = 72


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    words = [a + b for a in "bcdfghkl" for b in ("an", "el", "ob", "ut")]
    return train_tokenizer([" ".join(words[i:] + words[:i]) for i in range(32)], 310)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Decoder:
    spec = ModelSpec(
        vocab_size=tokenizer.vocab_size,
        hidden_size=48,
        layers=3,
        heads=6,
        kv_heads=2,
        head_dim=8,
        ffn_size=64,
        context_length=CONTEXT,
        rotary_fraction=0.5,
        init_std=0.3,
    )
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


def check_naive(
    model: Decoder, tokenizer: Tokenizer, text: str, sampling: Sampling, got: Completion
) -> None:
    ids = chat.raw_ids(tokenizer, text)
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
def test_greedy_equals_naive(model: Decoder, tokenizer: Tokenizer, max_batch: int) -> None:
    asked = requests(9, seed=max_batch, hot=False)
    got = answers(Engine(model, tokenizer, max_batch), asked, seed=max_batch)
    for (text, sampling), completion in zip(asked, got, strict=True):
        check_naive(model, tokenizer, text, sampling, completion)


def test_samples_do_not_depend_on_the_batch(model: Decoder, tokenizer: Tokenizer) -> None:
    asked = requests(12, seed=77, hot=True)
    engines = [Engine(model, tokenizer, size) for size in (1, 2, 5, 12)]
    alone, *others = [answers(engine, asked, seed) for seed, engine in enumerate(engines)]
    assert len({completion.token_ids for completion in alone}) == len(asked)
    for together in others:
        for one, other in zip(alone, together, strict=True):
            assert one.token_ids == other.token_ids
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_a_used_slot_leaves_no_trace(model: Decoder, tokenizer: Tokenizer) -> None:
    asked = requests(6, seed=5, hot=True)
    engine = Engine(model, tokenizer, 4)
    first = answers(engine, asked, seed=1)
    answers(engine, requests(10, seed=6, hot=True), seed=2)
    again = answers(engine, asked, seed=3)
    assert [one.token_ids for one in first] == [one.token_ids for one in again]
