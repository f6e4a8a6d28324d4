"""The ledger: a reply is paid for once, survives kill -9, and is never half read."""

import asyncio
import errno
import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest

from flywright.ask import (
    AskError,
    Ledger,
    Ledgered,
    LedgeredScorer,
    Limited,
    Patience,
    Sampling,
    Scripted,
)
from flywright.ask.scripted import ScriptedScorer
from flywright.errors import FlywrightError
from flywright.records import ATTRIBUTES, Conversation

QUESTION = Conversation.of("How many legs has a spider?")


def echo(prompt, sampling):
    asked = prompt if isinstance(prompt, str) else prompt.last
    return f"{asked} -> {sampling.seed}"


def ask_all(ask, count):
    async def run():
        return await asyncio.gather(
            *(ask.complete(f"q{number}", Sampling()) for number in range(count))
        )

    return [reply.text for reply in asyncio.run(run())]


def test_a_second_run_pays_nothing_and_gets_the_same(tmp_path):
    with Ledger(tmp_path / "l.jsonl") as ledger:
        first = ask_all(Ledgered(Scripted(echo), ledger), 20)
    scripted = Scripted(lambda *_: "another answer")
    with Ledger(tmp_path / "l.jsonl") as ledger:
        ask = Ledgered(scripted, ledger)
        assert ask_all(ask, 20) == first
        assert (ask.asked, ask.paid, scripted.calls) == (20, 0, 0)
        assert ask_all(ask, 21)[:20] == first
        assert scripted.calls == 1


def test_the_key_knows_model_prompt_kind_and_sampling(tmp_path):
    with Ledger(tmp_path / "l.jsonl") as ledger:
        asks = [Ledgered(Scripted(echo, model=name), ledger) for name in ("a", "b")]

        async def run():
            for ask in asks:
                await ask.complete(QUESTION, Sampling())
                await ask.complete(QUESTION, Sampling(seed=1))
                await ask.complete(QUESTION, Sampling(max_tokens=9))
                await ask.complete(QUESTION.last, Sampling())
                await ask.complete(QUESTION.answered("8").then("user", "Sure?"), Sampling())
                await ask.logprobs(QUESTION.last, ["8", "6"])
                await ask.logprobs(QUESTION.last, ["6", "8"])

        asyncio.run(run())
        assert [ask.paid for ask in asks] == [7, 7]
        assert len(ledger) == 14


def test_a_completion_comes_back_as_it_went_in(tmp_path):
    class Rich:
        model = "rich"

        async def complete(self, prompt, sampling):
            return (await Scripted(echo).complete(prompt, sampling)).__class__(
                "", "length", (3, 4), (-0.1, -1e-7), 5, 2
            )

        async def logprobs(self, context, continuations):
            return [-1.5, -2.25]

    async def ask(path):
        with Ledger(path) as ledger:
            answerer = Ledgered(Rich(), ledger)
            reply = await answerer.complete(QUESTION, Sampling())
            return reply, await answerer.logprobs("a", ["b", "c"])

    path = tmp_path / "l.jsonl"
    assert asyncio.run(ask(path)) == asyncio.run(ask(path))
    assert asyncio.run(ask(path))[0].token_ids == (3, 4)


def test_the_same_question_at_the_same_time_is_paid_once(tmp_path):
    scripted = Scripted(echo)
    with Ledger(tmp_path / "l.jsonl") as ledger:
        ask = Ledgered(scripted, ledger)

        async def run():
            return await asyncio.gather(*(ask.complete(QUESTION, Sampling()) for _ in range(5)))

        assert len(set(asyncio.run(run()))) == 1
    assert scripted.calls == 1


def test_a_failed_call_is_not_remembered(tmp_path):
    calls = []

    def fails_once(prompt, sampling):
        calls.append(prompt)
        if len(calls) == 1:
            raise AskError("busy", retryable=True)
        return "fine"

    with Ledger(tmp_path / "l.jsonl") as ledger:
        ask = Ledgered(Scripted(fails_once), ledger)
        with pytest.raises(AskError):
            asyncio.run(ask.complete(QUESTION, Sampling()))
        assert asyncio.run(ask.complete(QUESTION, Sampling())).text == "fine"


def test_a_torn_tail_is_cut_and_only_that_call_is_paid_again(tmp_path):
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        ask_all(Ledgered(Scripted(echo), ledger), 5)
    whole = path.read_bytes()
    for torn in (1, 7, len(whole.splitlines()[-1])):
        path.write_bytes(whole[:-torn])
        with Ledger(path) as ledger:
            ask = Ledgered(Scripted(echo), ledger)
            ask_all(ask, 5)
            assert ask.paid == 1
        assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_nothing_of_a_long_torn_tail_stays_behind_a_short_line(tmp_path):
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        asyncio.run(Ledgered(Scripted(echo), ledger).complete("long " * 200, Sampling()))
    path.write_bytes(path.read_bytes()[:-1])
    with Ledger(path) as ledger:
        ask_all(Ledgered(Scripted(echo), ledger), 1)
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["reply"]["text"] == "q0 -> 0"


def test_a_damaged_line_is_never_believed(tmp_path):
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        ask_all(Ledgered(Scripted(echo), ledger), 3)
    path.write_text(path.read_text().replace("q1 ->", "q1 =>"))
    with Ledger(path) as ledger:
        ask = Ledgered(Scripted(echo), ledger)
        assert ask_all(ask, 3)[1] == "q1 -> 0"
        assert (ledger.damaged, ask.paid) == (1, 1)


def test_one_writer_a_file(tmp_path):
    with Ledger(tmp_path / "l.jsonl"), pytest.raises(FlywrightError, match="in use by another"):
        Ledger(tmp_path / "l.jsonl")
    Ledger(tmp_path / "l.jsonl").close()


def test_a_reply_is_on_the_disk_before_the_caller_sees_it(tmp_path):
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        ask = Ledgered(Scripted(echo), ledger)

        async def look():
            await ask.complete("q", Sampling())
            return [json.loads(line)["reply"]["text"] for line in path.read_text().splitlines()]

        assert asyncio.run(look()) == ["q -> 0"]


def test_a_caller_that_gives_up_leaves_the_paid_reply(tmp_path):
    class Slow(Scripted):
        async def complete(self, prompt, sampling):
            await asyncio.sleep(0.05)
            return await super().complete(prompt, sampling)

    slow = Slow(echo)
    with Ledger(tmp_path / "l.jsonl") as ledger:
        ask = Ledgered(slow, ledger)

        async def run():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ask.complete("q", Sampling()), 0.001)
            return await ask.complete("q", Sampling())

        assert asyncio.run(run()).text == "q -> 0"
    assert slow.calls == 1


@pytest.mark.parametrize("inside", [False, True])
def test_replies_on_their_way_to_the_disk_outlive_an_error(tmp_path, monkeypatch, inside):
    real = Ledger._append

    def slowly(self, lines):
        time.sleep(0.05)
        real(self, lines)

    monkeypatch.setattr(Ledger, "_append", slowly)

    async def run(ledger, ask):
        with ledger if inside else nullcontext():
            asked = [asyncio.create_task(ask.complete(f"q{n}", Sampling())) for n in range(9)]
            await asyncio.sleep(0.01)  # one batch is being written, all others wait
            asked += [asyncio.create_task(ask.complete(f"r{n}", Sampling())) for n in range(9)]
            await asyncio.sleep(0.01)
            raise AskError("the line is dead")

    ledger, scripted = Ledger(tmp_path / "l"), Scripted(echo)
    with pytest.raises(AskError), nullcontext() if inside else ledger:
        asyncio.run(run(ledger, Ledgered(scripted, ledger)))
    assert scripted.calls == 18
    with Ledger(tmp_path / "l") as ledger:
        assert len(ledger) == 18
    assert len(list((tmp_path / "l").iterdir())) == 1


def test_a_disk_that_is_late_makes_nobody_pay_again(tmp_path, monkeypatch):
    real, late = Ledger._append, [0.2]

    def slowly(self, lines):
        time.sleep(late.pop() if late else 0)
        real(self, lines)

    monkeypatch.setattr(Ledger, "_append", slowly)
    scripted = Scripted(echo)
    with Ledger(tmp_path / "l") as ledger:
        ask = Ledgered(Limited(scripted, Patience(try_seconds=0.05)), ledger)
        assert asyncio.run(ask.complete("q", Sampling())).text == "q -> 0"
    assert scripted.calls == 1


def test_a_full_disk_is_one_clear_line_and_leaves_whole_lines(tmp_path, monkeypatch):
    path = tmp_path / "l.jsonl"
    real, room = os.pwrite, [150]

    def little_room(handle, raw, offset):
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = raw[: room[0]]
        room[0] -= len(part)
        return real(handle, part, offset)

    with Ledger(path) as ledger:
        ask = Ledgered(Scripted(echo), ledger)
        ask_all(ask, 2)
        whole = path.read_bytes()
        monkeypatch.setattr(os, "pwrite", little_room)
        with pytest.raises(FlywrightError, match=r"l\.jsonl: cannot write: No space"):
            asyncio.run(ask.complete("a long question " * 30, Sampling()))
        assert path.read_bytes() == whole
        monkeypatch.undo()
        asyncio.run(ask.complete("and on", Sampling()))
    with Ledger(path) as ledger:
        assert (len(ledger), ledger.damaged) == (3, 0)


def test_scores_are_remembered(tmp_path):
    calls = []

    def rate(conversation):
        calls.append(conversation)
        return dict.fromkeys(ATTRIBUTES, 1.25)

    conversation = QUESTION.answered("Eight.")
    scores = []
    for _ in range(2):
        with Ledger(tmp_path / "l.jsonl") as ledger:
            scorer = LedgeredScorer(ScriptedScorer(rate), ledger)
            scores.append(asyncio.run(scorer.score(conversation)))
    assert len(calls) == 1 and scores[0]["coherence"] == 1.25
    assert list(scores[0].items()) == list(scores[1].items())  # in the same order, too


def test_each_writer_of_a_folder_has_a_segment_and_reads_all(tmp_path):
    with Ledger(tmp_path / "l") as first, Ledger(tmp_path / "l") as second:
        scripted = [Scripted(echo), Scripted(echo)]
        asks = [Ledgered(scripted[0], first), Ledgered(scripted[1], second)]
        ask_all(asks[0], 5)
        second.refresh()
        ask_all(asks[1], 8)
        first.refresh()
        ask_all(asks[0], 8)
        assert [who.calls for who in scripted] == [5, 3]
        assert len(first) == len(second) == 8
    assert len(list((tmp_path / "l").glob("*.jsonl"))) == 2


def test_torn_tails_and_damage_in_a_folder_and_the_older_reply_counts(tmp_path):
    with Ledger(tmp_path / "l") as ledger:
        ask_all(Ledgered(Scripted(echo), ledger), 5)
    (segment,) = (tmp_path / "l").glob("*.jsonl")
    segment.write_bytes(segment.read_bytes()[:-3])
    with Ledger(tmp_path / "l") as ledger:
        ask = Ledgered(Scripted(lambda *_: "later"), ledger)
        texts = ask_all(ask, 5)
        assert ask.paid == 1 and texts.count("later") == 1
    (older, newer) = sorted((tmp_path / "l").glob("*.jsonl"))
    whole = older.read_bytes().rpartition(b"\n")[0] + b"\n"
    newer.write_bytes(whole.replace(b"->", b"=>") + newer.read_bytes() + whole)
    with Ledger(tmp_path / "l") as ledger:
        assert (len(ledger), ledger.damaged) == (5, 4)
        assert ask_all(Ledgered(Scripted(echo), ledger), 5) == texts


SHARED = """
import asyncio, os, sys
from pathlib import Path
from flywright.ask import Crew, Ledger, Ledgered, Sampling, Scripted, gather

folder = Path(sys.argv[1])
paid = os.open(folder / "paid", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

class Answerer(Scripted):
    async def complete(self, prompt, sampling):
        os.write(paid, b"x")
        await asyncio.sleep(0.01)
        return await super().complete(prompt, sampling)

with Crew(folder) as crew, Ledger(folder / "ledger", crew.lease) as ledger:
    crew.refresh = ledger.refresh
    ask = Ledgered(Answerer(lambda prompt, _: prompt.upper()), ledger)
    asyncio.run(gather(lambda n: ask.complete(f"q{n}", Sampling()), range(30), 3))
"""


def test_two_processes_that_ask_the_same_pay_once(tmp_path):
    command = [sys.executable, "-c", SHARED, str(tmp_path)]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "paid").stat().st_size == 30


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from flywright.ask import Ledger, Ledgered, Sampling, Scripted
from flywright.ask.limits import gather

folder, fatal, limit = Path(sys.argv[1]), int(sys.argv[2]), 4
paid = os.open(folder / "paid", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

class Answerer(Scripted):
    async def complete(self, prompt, sampling):
        os.write(paid, b"x")
        await asyncio.sleep(0.001)
        if self.calls == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().complete(prompt, sampling)

ask = Ledgered(Answerer(lambda prompt, _: prompt.upper()), folder / "ledger.jsonl")
asyncio.run(gather(lambda n: ask.complete(f"q{n}", Sampling()), range(40), limit))
"""


def test_kill_9_pays_again_at_most_the_calls_in_flight(tmp_path):
    def run(fatal):
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(fatal)]
        return subprocess.run(command, check=False).returncode

    assert run(fatal=17) == -9
    assert run(fatal=-1) == 0
    assert 40 < (tmp_path / "paid").stat().st_size <= 40 + 4
