"""The engine keeps what it promises to those who ask."""

import asyncio
import json
import re
import time
from pathlib import Path

import pytest
import torch

from flywright.ask import AskError, Sampling
from flywright.errors import UserError
from flywright.generate import Engine
from flywright.generate.cache import PagedCache
from flywright.generate.runner import Local
from flywright.model import Decoder, save
from flywright.model.reward import RewardModel
from flywright.records import Conversation
from flywright.tokenizer import Tokenizer, chat


def idle(engine: Engine) -> bool:
    """True when the engine has nothing left to do, soon after the last answer."""
    end = time.monotonic() + 10
    while engine._runner.scheduler.busy and time.monotonic() < end:
        time.sleep(0.001)
    return not engine._runner.scheduler.busy


def test_completions_come_in_order_and_count_their_tokens(engine, tokenizer):
    prompts = ["ban bel", Conversation.of("cut dob?"), "nut " * 10, "bel ban", "hut"]
    got = engine.generate(prompts, max_new_tokens=6, temperature=1.0, seed=5)
    for prompt, completion in zip(prompts, got, strict=True):
        ids = (
            chat.raw_ids(tokenizer, prompt)
            if isinstance(prompt, str)
            else chat.prompt_ids(tokenizer, prompt)
        )
        assert completion.prompt_tokens == len(ids)
        assert completion.completion_tokens == len(completion.token_ids) <= 6
        assert len(completion.logprobs) == len(completion.token_ids)
        assert completion.text == chat.answer_text(tokenizer, list(completion.token_ids))
    assert [c.token_ids for c in got] == [
        c.token_ids for c in engine.generate(prompts, max_new_tokens=6, temperature=1.0, seed=5)
    ]
    alone = engine.generate(prompts[:1], max_new_tokens=6, temperature=1.0, seed=5)
    assert alone[0].token_ids == got[0].token_ids


def test_one_prompt_is_sampled_differently_each_time(engine):
    got = engine.generate(["ban bel"] * 6, max_new_tokens=8, temperature=1.0)
    assert len({completion.token_ids for completion in got}) == 6


@pytest.mark.parametrize("name", ["<extra_id_1>", "</s>"])
def test_end_tokens_stop_and_are_not_in_the_text(decoder, tokenizer, name):
    (end,) = tokenizer.raw_ids(name)
    model = Decoder(decoder.spec)
    model.load_state_dict(decoder.state_dict())
    free = Engine(model, tokenizer).generate(["ban bel"], max_new_tokens=12)[0]
    assert free.finish == "length" and len(free.token_ids) == 12
    fifth = free.token_ids[4]
    with torch.no_grad():  # what was said fifth is now an end token
        weight = model.lm_head.weight
        weight[[end, fifth]] = weight[[fifth, end]]
    cut = Engine(model, tokenizer).generate(["ban bel"], max_new_tokens=12)[0]
    assert cut.finish == "stop"
    assert cut.token_ids[-1] == end and end not in cut.token_ids[:-1]
    first = free.token_ids.index(fifth)
    assert cut.text == tokenizer.decode(free.token_ids[:first]).removesuffix("\n")


def test_stop_strings_are_cut_from_the_text(engine, tokenizer):
    free = engine.generate(["ban bel", "cut"], max_new_tokens=30, temperature=1.0, seed=1)
    stop = free[0].text[9:12]
    got = engine.generate(
        ["ban bel", "cut"], max_new_tokens=30, temperature=1.0, seed=1, stop=[stop]
    )
    assert got[0].finish == "stop"
    assert got[0].text == free[0].text[: free[0].text.index(stop)]
    assert stop in tokenizer.decode(got[0].token_ids)
    assert stop not in tokenizer.decode(got[0].token_ids[:-1])


def test_an_answer_is_clipped_at_the_context(engine, tokenizer):
    prompt = "ban bel cut dob " * 3
    length = len(tokenizer.encode(prompt))
    (got,) = engine.generate([prompt], max_new_tokens=1000)
    assert got.finish == "length"
    assert got.prompt_tokens + got.completion_tokens == 64 and got.prompt_tokens == length


def test_a_prompt_without_room_is_refused_in_one_line(engine):
    with pytest.raises(AskError, match=r"prompt is \d+ tokens.* room for 63") as caught:
        engine.generate(["ban " * 200])
    assert "\n" not in str(caught.value)
    with pytest.raises(AskError, match="max_tokens is 0"):
        engine.generate(["ban"], max_new_tokens=0)


def test_padded_vocabulary_is_never_drawn(decoder, tokenizer):
    spec = decoder.spec.model_copy(update={"vocab_size": tokenizer.vocab_size + 32})
    wide = Decoder(spec, seed=8)
    with torch.no_grad():
        wide.lm_head.weight[tokenizer.vocab_size :] *= 50
    (got,) = Engine(wide, tokenizer).generate(["ban"], max_new_tokens=20, temperature=2.0)
    assert max(got.token_ids) < tokenizer.vocab_size


def test_logprobs_equal_one_forward_pass(engine, decoder, tokenizer):
    continuations = [" bel", "cut dob", "", "\n<extra_id_1>"]

    async def ask():
        return await asyncio.gather(
            engine.logprobs("ban", continuations), engine.logprobs("", ["ban bel"])
        )

    got, from_start = asyncio.run(ask())
    for text, value in zip(continuations, got, strict=True):
        assert value == pytest.approx(_naive_logprob(decoder, tokenizer, "ban", text), abs=1e-4)
    expected = _naive_logprob(decoder, tokenizer, "</s>", "ban bel")
    assert from_start == [pytest.approx(expected, abs=1e-4)]
    assert got[2] == 0.0


def _naive_logprob(decoder: Decoder, tokenizer: Tokenizer, context: str, text: str) -> float:
    before, after = chat.raw_ids(tokenizer, context), chat.raw_ids(tokenizer, text)
    logprobs_TV = decoder(torch.tensor([before + after]))[0].log_softmax(-1)
    return sum(float(logprobs_TV[len(before) + i - 1, token]) for i, token in enumerate(after))


def test_a_cancelled_request_leaves_and_the_rest_go_on(engine):
    async def ask():
        tasks = [
            asyncio.create_task(engine.complete(text, Sampling(max_tokens=40)))
            for text in ("ban", "bel", "cut", "dob", "nut")
        ]
        await asyncio.sleep(0)
        tasks[1].cancel()
        tasks[4].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    got = asyncio.run(ask())
    expected = engine.generate(["ban", "bel", "cut", "dob", "nut"], max_new_tokens=40)
    for index, completion in enumerate(got):
        if index in (1, 4):
            assert isinstance(completion, asyncio.CancelledError)
        else:
            assert completion == expected[index]
    assert idle(engine)


def test_a_request_cancelled_while_it_waits_costs_nothing(engine, monkeypatch):
    rows, real = [], Local.__call__

    async def ask():
        task = asyncio.create_task(engine.complete("bel", Sampling(max_tokens=40)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(ask())
    monkeypatch.setattr(
        Local, "__call__", lambda self, step: rows.append(len(step.table)) or real(self, step)
    )
    engine.generate(["ban"], max_new_tokens=1)
    assert rows == [1]


def test_a_request_cancelled_while_it_runs_leaves_at_once(engine, monkeypatch):
    steps, real = [], Local.__call__

    async def ask():
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(engine.complete("bel", Sampling(max_tokens=50)))

        def hidden(*args, **kwargs):
            steps.append(1)
            if len(steps) == 5:
                loop.call_soon_threadsafe(task.cancel)
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result(timeout=5)
            return real(*args, **kwargs)

        monkeypatch.setattr(Local, "__call__", hidden)
        await asyncio.gather(task, return_exceptions=True)
        return await engine.complete("ban", Sampling(max_tokens=2))

    assert asyncio.run(ask()).completion_tokens == 2
    assert len(steps) == 5 + 2


def test_the_event_loop_stays_free_while_the_model_computes(engine, monkeypatch):
    real = Local.__call__

    async def ask():
        loop = asyncio.get_running_loop()

        def hidden(*args, **kwargs):  # the loop answers, or this times out
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(timeout=5)
            return real(*args, **kwargs)

        monkeypatch.setattr(Local, "__call__", hidden)
        return await engine.complete("ban", Sampling(max_tokens=3))

    assert asyncio.run(ask()).completion_tokens >= 1


def test_an_error_reaches_everyone_and_the_engine_goes_on(engine, monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("out of memory")

    async def ask():
        asked = [engine.complete(text, Sampling(max_tokens=4)) for text in ("ban", "bel") * 3]
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), timeout=30)

    before = engine.generate(["ban"], max_new_tokens=4)
    with monkeypatch.context() as patch:
        patch.setattr(Local, "__call__", broken)
        assert [str(error) for error in asyncio.run(ask())] == ["out of memory"] * 6
    assert engine.generate(["ban"], max_new_tokens=4) == before


def test_progress_is_told(engine):
    told = []
    engine.generate(["ban", "bel"], max_new_tokens=2, tick=lambda *step: told.append(step[:2]))
    assert told == [(1, 2), (2, 2)]


def test_an_engine_opens_a_folder_and_refuses_a_reward_model(tmp_path: Path, decoder, tokenizer):
    save(decoder, tmp_path / "policy")
    tokenizer.save(tmp_path / "policy")
    folder = tmp_path / "policy"
    opened = Engine(folder)
    assert opened.model == str(folder)
    expected = Engine(decoder, tokenizer).generate(["ban bel"], max_new_tokens=8)
    assert opened.generate(["ban bel"], max_new_tokens=8) == expected
    save(RewardModel.from_decoder(decoder, seed=0), tmp_path / "reward")
    with pytest.raises(UserError, match="reward model"):
        Engine(tmp_path / "reward", tokenizer)


def test_another_precision_decodes_on_a_copy(decoder, tokenizer):
    half = Engine(decoder, tokenizer, dtype=torch.bfloat16)
    (got,) = half.generate(["ban bel cut"], max_new_tokens=3)
    (exact,) = Engine(decoder, tokenizer).generate(["ban bel cut"], max_new_tokens=3)
    assert got.logprobs[0] == pytest.approx(exact.logprobs[0], abs=0.1)
    assert got.logprobs != exact.logprobs
    assert decoder.lm_head.weight.dtype == torch.float32


def test_a_cache_holds_whole_contexts_or_shortens_the_context(tiny_spec):
    cpu, each = torch.device("cpu"), tiny_spec.kv_bytes_per_token(4)
    long = tiny_spec.model_copy(update={"context_length": 131_072})
    few = PagedCache(long, 64, torch.float32, cpu, most_bytes=each * 131_072 * 2)
    assert (few.pages, few.context_length) == (2 * 131_072 // 16, 131_072)
    short = PagedCache(long, 64, torch.float32, cpu, most_bytes=each * 1000)
    assert (short.pages, short.context_length) == (62, 992)
    small = PagedCache(tiny_spec, 2, torch.float32, cpu)
    assert small.pages == 2 * tiny_spec.context_length // 16
    with pytest.raises(UserError, match="holds no context"):
        PagedCache(tiny_spec, 2, torch.float32, cpu, most_bytes=100)


def test_a_prompt_is_computed_once_for_many_answers(engine, monkeypatch):
    prompt = "ban bel cut dob " * 10
    tokens, real = [], Local.__call__
    monkeypatch.setattr(
        Local, "__call__", lambda self, step: tokens.append(len(step.ids)) or real(self, step)
    )
    (alone,) = engine.generate([prompt], max_new_tokens=1)
    assert sum(tokens) == alone.prompt_tokens > 33
    engine.generate([prompt] * 3, max_new_tokens=1)
    assert sum(tokens) <= alone.prompt_tokens + 3 * 17
    assert engine.stats()["reused_tokens"] >= 3 * (alone.prompt_tokens - 17)


def test_parts_of_a_stream_make_up_the_answer(engine):
    async def parts(sampling):
        return [part async for part in engine.stream("ban bel", sampling)]

    for stop in ((), ("el",), ("ban", "zz")):
        for seed in range(4):
            how = Sampling(max_tokens=30, temperature=1.2, seed=seed, stop=stop, top_logprobs=2)
            whole = asyncio.run(engine.complete("ban bel", how))
            told = asyncio.run(parts(how))
            assert "".join(part.text for part in told) == whole.text
            assert [part.finish for part in told] == [""] * (len(told) - 1) + [whole.finish]
            for name in ("token_ids", "logprobs", "top"):
                assert sum((getattr(part, name) for part in told), ()) == getattr(whole, name)
            assert sum(part.completion_tokens for part in told) == whole.completion_tokens


def test_leaving_a_stream_takes_the_request_back(engine):
    async def leave():
        stream = engine.stream("ban", Sampling(max_tokens=60, min_tokens=60))
        async for _ in stream:
            break
        await stream.aclose()
        await engine.complete("bel", Sampling(max_tokens=1))

    asyncio.run(leave())
    assert idle(engine)
    assert engine.stats()["steps"] < 40


def test_read_tells_every_token_and_the_likely_ones(engine, decoder, tokenizer):
    ids = chat.raw_ids(tokenizer, "ban bel cut")
    got = asyncio.run(engine.read(ids, top=3))
    logprobs_TV = decoder(torch.tensor([ids]))[0].log_softmax(-1)
    expected = [float(logprobs_TV[i, token]) for i, token in enumerate(ids[1:])]
    assert got.logprobs == pytest.approx(expected, abs=1e-4)
    assert got.token_ids == tuple(ids) and len(got.top) == len(ids) - 1
    for row, likely in enumerate(got.top):
        values, best = logprobs_TV[row].topk(3)
        assert [token for token, _ in likely] == best.tolist()
        assert [value for _, value in likely] == pytest.approx(values.tolist(), abs=1e-4)
    assert asyncio.run(engine.read(ids[:1])).logprobs == ()


def test_token_ids_are_a_prompt_and_unknown_ones_are_refused(engine, tokenizer):
    ids = tuple(chat.raw_ids(tokenizer, "ban bel"))
    assert engine.generate([ids], 5)[0] == engine.generate(["ban bel"], 5)[0]
    with pytest.raises(AskError, match=f"token {tokenizer.vocab_size} is not in the vocabulary"):
        engine.generate([(1, tokenizer.vocab_size)])


def test_end_tokens_are_those_that_are_asked_for(engine, tokenizer):
    free = engine.generate(["ban bel"], 30, min_new_tokens=30)[0]
    assert len(free.token_ids) == 30 and not set(free.token_ids) & set(chat.end_ids(tokenizer))
    ends = (free.token_ids[7],)
    how = Sampling(max_tokens=30, end_ids=ends)
    cut = asyncio.run(engine.complete("ban bel", how))
    first = free.token_ids.index(ends[0])
    assert cut.token_ids == free.token_ids[: first + 1] and cut.finish == "stop"
    assert cut.text == tokenizer.decode(free.token_ids[:first])


def test_a_control_piece_as_stop_string_is_an_end_token(decoder, tokenizer):
    label = tokenizer.extra_ids[2]
    model = Decoder(decoder.spec)
    model.load_state_dict(decoder.state_dict())
    free = Engine(model, tokenizer).generate(["ban bel"], max_new_tokens=12)[0]
    with torch.no_grad():
        model.lm_head.weight[[label, free.token_ids[4]]] = model.lm_head.weight[
            [free.token_ids[4], label]
        ]
    engine = Engine(model, tokenizer)
    how = Sampling(max_tokens=12, stop=("<extra_id_2>",))
    got = asyncio.run(engine.complete("ban bel", how))
    assert got.token_ids[-1] == label and got.finish == "stop"
    assert asyncio.run(engine.complete("ban bel", Sampling(max_tokens=12))).finish == "length"


def test_a_penalty_makes_what_was_said_less_likely(engine):
    free = asyncio.run(engine.complete("ban bel", Sampling(max_tokens=40)))
    how = Sampling(max_tokens=40, repetition_penalty=100.0)
    varied = asyncio.run(engine.complete("ban bel", how))
    assert len(set(varied.token_ids)) == len(varied.token_ids)
    assert len(set(free.token_ids)) < len(free.token_ids)


@pytest.mark.parametrize(
    ("grammar", "holds"),
    [
        ("regex:[0-9]{3}-[a-f]+x", lambda text: re.fullmatch("[0-9]{3}-[a-f]+x", text)),
        (
            'json:{"type":"object","properties":{"a":{"type":"integer","maximum":99},'
            '"b":{"enum":["ban","cut"]}},"required":["a","b"],"additionalProperties":false}',
            lambda text: set(json.loads(text)) == {"a", "b"} and json.loads(text)["a"] <= 99,
        ),
        ('lark:start: "yes" | "no"', lambda text: text in ("yes", "no")),
    ],
)
def test_answers_keep_to_a_grammar(engine, grammar, holds):
    for seed in range(3):
        how = Sampling(max_tokens=60, temperature=1.5, seed=seed, grammar=grammar)
        got = asyncio.run(engine.complete("ban", how))
        assert got.finish == "length" or holds(got.text), got.text


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("regex:[0-9", "grammar: "),
        ("json:{", "grammar: "),
        ("yaml:a", "no kind of grammar"),
        ("lark:start: nothing", "grammar: "),
        ("regex:" + "a" * 70_000, "at most 65536"),
    ],
)
def test_a_bad_grammar_is_its_own_askers_fault(engine, grammar, reason):
    async def both():
        bad = engine.complete("ban", Sampling(max_tokens=4, grammar=grammar))
        good = engine.complete("bel", Sampling(max_tokens=4))
        return await asyncio.gather(bad, good, return_exceptions=True)

    error, answer = asyncio.run(both())
    assert isinstance(error, UserError) and reason in str(error) and "\n" not in str(error)
    assert answer.completion_tokens >= 1


def test_guesses_save_steps_and_change_nothing(decoder, tokenizer):
    prompt = "ban bel cut " * 4
    plain = Engine(decoder, tokenizer)
    guessing = Engine(decoder, tokenizer, guesses=3)
    for heat in (0.0, 0.3):
        one = plain.generate([prompt], 16, temperature=heat)
        assert guessing.generate([prompt], 16, temperature=heat) == one
    before = plain.stats()["steps"], guessing.stats()["steps"]
    loops = [each.generate([prompt], 50, min_new_tokens=50)[0] for each in (plain, guessing)]
    assert loops[0] == loops[1]
    steps, guessed_steps = plain.stats()["steps"] - before[0], guessing.stats()["steps"] - before[1]
    assert guessed_steps < steps  # greedy decoding of random weights soon repeats itself


def test_int8_weights_are_near_and_do_not_depend_on_the_batch(decoder, tokenizer):
    exact = Engine(decoder, tokenizer).generate(["ban bel cut"], 1)[0]
    engine = Engine(decoder, tokenizer, dtype=torch.bfloat16, int8=True)
    prompts = ["ban bel cut", "dob", "nut " * 9]
    together = engine.generate(prompts, 20)
    assert together[0].logprobs[0] == pytest.approx(exact.logprobs[0], abs=0.1)
    assert together[0].logprobs[0] != exact.logprobs[0]
    assert [engine.generate([one], 20)[0] for one in prompts] == together


def test_a_page_is_known_by_all_that_stands_before_it(decoder, tokenizer):
    first, other, second, third = (tuple(range(at, at + 16)) for at in (20, 60, 100, 140))
    engine = Engine(decoder, tokenizer)
    for pages in (first + second, other + third):
        engine.generate([(*pages, 30)], 4)
    alone = Engine(decoder, tokenizer).generate([(*other, *second, 30)], 4)
    assert engine.generate([(*other, *second, 30)], 4) == alone


def test_a_text_that_fills_the_whole_cache_is_read(decoder, tokenizer):
    engine = Engine(decoder, tokenizer, max_batch=1)
    ids = (chat.raw_ids(tokenizer, "ban bel cut dob ") * 20)[: engine.context_tokens]
    got = asyncio.run(asyncio.wait_for(engine.read(ids), timeout=30))
    assert len(got.logprobs) == engine.context_tokens - 1
