"""Limits: order is kept, no more than the limit at once, retries and deadlines as told."""

import asyncio
from contextlib import aclosing

import pytest

from flywright.ask import (
    AskError,
    Budget,
    Limited,
    Load,
    Mixed,
    Patience,
    Price,
    Sampling,
    Scripted,
    Stopped,
    gather,
    ordered,
)
from flywright.ask.budget import Costs
from flywright.synth import Maker, SynthSettings


def test_gather_keeps_order_and_limit():
    running, most = 0, 0

    async def work(item):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002 * ((item * 7) % 5))
        running -= 1
        return item * item

    ticks = []
    results = asyncio.run(
        gather(work, range(30), limit=4, tick=lambda *tick: ticks.append(tick), note="squares")
    )
    assert results == [item * item for item in range(30)]
    assert most == 4
    assert ticks[-1] == (30, 30, "squares") and len(ticks) == 30
    assert asyncio.run(gather(work, [])) == []


def test_gather_raises_the_error_and_stops_the_rest():
    finished = []

    async def work(item):
        if item == 3:
            raise AskError("down")
        await asyncio.sleep(0.02 if item else 0)
        finished.append(item)

    with pytest.raises(AskError, match="down"):
        asyncio.run(gather(work, range(50), limit=8))
    assert len(finished) < 8


class Flaky(Scripted):
    """Fails the first `failures` calls."""

    def __init__(self, failures, retryable=True, seconds=0.0):
        super().__init__(lambda prompt, _: f"answer to {prompt}")
        self.failures, self.retryable, self.seconds = failures, retryable, seconds

    async def complete(self, prompt, sampling):
        await asyncio.sleep(self.seconds)
        self.failures -= 1
        if self.failures >= 0:
            raise AskError("overloaded", self.retryable)
        return await super().complete(prompt, sampling)


async def no_sleep(_seconds):
    pass


def test_retries_until_the_answer_comes():
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)

    ask = Limited(Flaky(3), Patience(retries=3), sleep=sleep)
    assert asyncio.run(ask.complete("q", Sampling())).text == "answer to q"
    assert ask.calls == 4
    assert len(pauses) == 3 and pauses[0] < pauses[1] < pauses[2]


def test_gives_up_after_the_retries_and_at_once_where_it_is_useless():
    ask = Limited(Flaky(9), Patience(retries=2), sleep=no_sleep)
    with pytest.raises(AskError, match="overloaded"):
        asyncio.run(ask.complete("q", Sampling()))
    assert ask.calls == 3
    ask = Limited(Flaky(9, retryable=False), Patience(retries=2), sleep=no_sleep)
    with pytest.raises(AskError):
        asyncio.run(ask.complete("q", Sampling()))
    assert ask.calls == 1


def test_the_deadline_is_a_retryable_error_that_names_it():
    ask = Limited(Flaky(0, seconds=5), Patience(deadline_seconds=0.01))
    with pytest.raises(AskError, match=r"0\.01 s") as caught:
        asyncio.run(ask.complete("q", Sampling()))
    assert caught.value.retryable


def test_concurrency_halves_on_overload_and_grows_back():
    ask = Limited(Flaky(7), Patience(retries=7), concurrency=16, sleep=no_sleep)

    async def run():
        await ask.complete("q", Sampling())
        low = ask.concurrency
        await gather(lambda n: ask.complete(f"{n}", Sampling()), range(300))
        return low

    assert asyncio.run(run()) == 4
    assert ask.concurrency == 16


def test_a_few_failures_that_no_haste_has_caused_slow_nobody():
    class Shaky(Scripted):
        async def complete(self, prompt, sampling):
            self.failing = (getattr(self, "failing", 0) + 1) % 12
            if not self.failing:
                raise AskError("a planned fault", retryable=True, fault="overload")
            return await super().complete(prompt, sampling)

    ask = Limited(Shaky(lambda *_: "a"), concurrency=64, sleep=no_sleep)
    asyncio.run(gather(lambda n: ask.complete(f"{n}", Sampling()), range(600)))
    assert ask.calls > 640 and ask.concurrency == 64


def test_no_more_in_flight_than_the_concurrency_also_in_a_second_loop():
    running, most = 0, 0

    class Counting(Scripted):
        async def complete(self, prompt, sampling):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.001)
            running -= 1
            return await super().complete(prompt, sampling)

    ask = Limited(Counting(lambda *_: "a"), concurrency=3)
    for _ in range(2):
        asyncio.run(gather(lambda n: ask.complete(f"{n}", Sampling()), range(20)))
    assert most == 3


def test_a_spent_budget_stops():
    budget = Budget(tokens=4)
    ask = Limited(Flaky(0), budget=budget, price=Price(2e6, 1e6))
    asyncio.run(ask.complete("q", Sampling()))
    assert (budget.mine.calls, budget.mine.tokens, budget.mine.money) == (1, 4, 5)
    with pytest.raises(Stopped, match="budget of 4 tokens is spent") as caught:
        asyncio.run(ask.complete("q", Sampling()))
    assert caught.value.exit_status == 75 and not caught.value.retryable
    for other in (Budget(money=5), Budget(seconds=1e-9)):
        ask = Limited(Flaky(0), budget=other, price=Price(2e6, 1e6))
        other.others.add(4, 5.0)
        with pytest.raises(Stopped, match="budget"):
            asyncio.run(ask.complete("q", Sampling()))


def test_one_storm_halves_once_and_a_busy_server_is_asked_less():
    class Storm(Scripted):
        async def complete(self, prompt, sampling):
            await asyncio.sleep(0.01)
            raise AskError("rate", retryable=True, fault="rate")

    async def busy():
        return Load(waiting=3, cache_share=0.5)

    async def run(ask):
        asked = [ask.complete(f"{n}", Sampling()) for n in range(16)]
        await asyncio.gather(*asked, return_exceptions=True)
        return ask.concurrency

    storm = Limited(Storm(lambda *_: ""), Patience(retries=0), concurrency=16)
    assert asyncio.run(run(storm)) == 8
    assert asyncio.run(run(Limited(Flaky(0, seconds=0.02), concurrency=16, load=busy))) == 12


def test_work_in_order_keeps_to_its_window():
    begun, handed = [], 0

    async def work(item):
        begun.append(item)
        await asyncio.sleep(0.05 if item == 0 else 0)
        return item

    async def run():
        nonlocal handed
        async with aclosing(ordered(work, iter(range(1000)), limit=4, window=10)) as results:
            async for result in results:
                assert result == handed
                handed += 1
                assert len(begun) <= handed + 10

    asyncio.run(run())
    assert handed == 1000


def test_a_forecast_holds_what_comes():
    costs = Costs()
    for value in (10, 12, 8, 10) * 25:
        costs.add(value)
    mean, half = costs.forecast(900)
    assert mean == 9000 and 200 < half < 300


def test_one_of_several_answers_by_weight_whatever_the_order():
    mixed = Mixed([(Scripted(lambda *_: "", "a"), 3.0), (Scripted(lambda *_: "", "b"), 1.0)], 1)
    assert mixed.model == "a"  # outside of a record

    async def step(_record, ask):
        await asyncio.sleep(0)
        return [ask.model]

    async def run(records):
        return await Maker(mixed, SynthSettings(), 1).run("who", step, records)

    names = asyncio.run(run(range(400)))
    assert 270 < names.count("a") < 330
    assert asyncio.run(run(range(399, -1, -1))) == names[::-1]
