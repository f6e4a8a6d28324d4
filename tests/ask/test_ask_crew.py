"""Leases: one holder at a time; taken over from who is gone or stands still, never from others."""

import asyncio
import subprocess
import sys

from flywright.ask import Budget, Crew

HELD = """
import os, pathlib, sys
from flywright.ask import Crew
Crew(pathlib.Path(sys.argv[1])).__enter__().take("shard")
os._exit(1)
"""


def test_one_holder_at_a_time_and_the_next_sees_what_was_made(tmp_path):
    with Crew(tmp_path) as first, Crew(tmp_path) as second:
        seen = []
        second.refresh = lambda: seen.append("refreshed")

        async def waits():
            async with second.lease("shard") as held:
                return held

        async def run():
            asked = None
            assert first.take("shard")
            assert not second.take("shard")
            asked = asyncio.create_task(waits())
            await asyncio.sleep(0.05)
            assert not asked.done() and not seen
            first.give("shard")
            assert await asked and seen == ["refreshed"]
            async with first.lease("outer") as held, first.lease("shard") as inner:
                assert held and first.holds
                assert not inner  # what is done here is nobody else's anyway
            assert not first.holds
            assert second.take("outer")

        asyncio.run(run())


def test_who_is_gone_loses_its_leases_at_once(tmp_path):
    gone = subprocess.run([sys.executable, "-c", HELD, str(tmp_path)], check=False)
    assert gone.returncode == 1 and (tmp_path / "leases" / "shard").exists()
    with Crew(tmp_path, stale_seconds=1000) as crew:
        assert crew.take("shard")


def test_who_stands_still_loses_its_leases_and_the_living_do_not(tmp_path):
    still, living = Crew(tmp_path), Crew(tmp_path)
    still.name, living.name = "far:1:1", "away:1:1"  # on other machines: only their beats tell
    still.beat()
    living.beat()
    with Crew(tmp_path, stale_seconds=0.4) as crew:
        assert still.take("a") and living.take("b")
        assert not crew.take("a") and not crew.take("b")

        async def run():
            for _ in range(6):
                await asyncio.sleep(0.1)
                living.beat()
                assert not crew.take("b")
            assert crew.take("a")

        asyncio.run(run())
        still.give("a")  # too late: it is another's now
        assert not living.take("a")


def test_a_budget_hears_of_what_others_and_earlier_runs_have_spent(tmp_path):
    for _ in range(2):
        earlier = Budget()
        with Crew(tmp_path, earlier):
            earlier.mine.add(10, 0.5)
    now = Budget()
    with Crew(tmp_path, now):
        assert (now.others.calls, now.others.tokens, now.others.money) == (2, 20, 1.0)


def test_workers_begin_at_different_places(tmp_path):
    orders = [Crew(tmp_path, number=number).order(12) for number in range(4)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert orders[0] == list(range(12)) and len({order[0] for order in orders}) == 4
