"""Law 10: a generation flow killed at any moment and resumed ends with the same records.

A child process runs topics -> questions -> dialogues -> comparisons over a ledger and kills itself
(SIGKILL) at its n-th paid call; run again until it ends, it must write the very bytes of a run that
was never disturbed, and have paid for no more calls again than were in flight at the kills.
"""

import json
import random
import subprocess
import sys

import pytest

from flywright.records import ATTRIBUTES, Comparison, Dialogue, read_jsonl

LIMIT = 4
FLOW = """
import asyncio, os, random, signal, sys
from pathlib import Path
from flywright.ask import Completion, Ledger, Ledgered, LedgeredScorer
from flywright.records import ATTRIBUTES, write_jsonl
from flywright.synth import Maker, SynthSettings
from flywright.synth.comparisons import Judges, comparisons
from flywright.synth.dialogues import dialogues
from flywright.synth.filters import by_reward
from flywright.synth.prompts import open_qa
from flywright.synth.topics import topics

folder, fatal, delays = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
paid_file = os.open(folder / "paid", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
paid_now = 0

async def pay():
    global paid_now
    os.write(paid_file, b"x")
    paid_now += 1
    mine = paid_now
    await asyncio.sleep(delays.random() * 0.002)
    if mine == fatal:
        os.kill(os.getpid(), signal.SIGKILL)

class Answerer:
    def __init__(self, model):
        self.model = model

    async def complete(self, prompt, sampling):
        await pay()
        text = prompt.last
        if "numbered list" in text:
            topic = text.splitlines()[0].split(":")[-1].strip(" .")
            return Completion("".join(f"{n}. {topic} part {n}\\n" for n in range(1, 6)))
        return Completion(f"{self.model} on {len(text)} letters, draw {sampling.seed % 997}")

class Rater:
    model = "rater"

    async def score(self, conversation):
        await pay()
        return dict.fromkeys(ATTRIBUTES, len(conversation.last) / 10 + 0.1)

async def run(ledger):
    settings = SynthSettings(macro_topics=2, subtopics=2, questions=2, user_turns=2, concurrency=4)
    models = [Ledgered(Answerer(name), ledger) for name in ("first", "second one")]
    rater = LedgeredScorer(Rater(), ledger)
    maker = Maker(models[0], settings, seed=3)
    prompts = await open_qa(maker, await topics(maker))
    made = await by_reward(maker, await dialogues(maker, prompts), rater, 0.0)
    named = {model.model: model for model in models}
    judges = Judges(scorer=rater)
    return [*made, *await comparisons(maker, prompts, named, judges)]

with Ledger(folder / "ledger.jsonl") as ledger:
    write_jsonl(folder / "records.jsonl", asyncio.run(run(ledger)))
"""


def run_flow(folder, fatal, seed):
    command = [sys.executable, "-c", FLOW, str(folder), str(fatal), str(seed)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    result = run_flow(folder, -1, seed=0)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize("seed", [1, 2])
def test_law10_killed_and_resumed_is_the_same(undisturbed, tmp_path, seed):
    calls = (undisturbed / "paid").stat().st_size
    rng = random.Random(seed)
    kills = 0
    for _ in range(2):
        result = run_flow(tmp_path, rng.randint(1, calls // 3), seed=rng.randint(0, 99))
        assert result.returncode == -9, result.stderr
        assert not (tmp_path / "records.jsonl").exists()
        kills += 1
    result = run_flow(tmp_path, -1, seed=seed)
    assert result.returncode == 0, result.stderr
    records = (tmp_path / "records.jsonl").read_bytes()
    assert records == (undisturbed / "records.jsonl").read_bytes()
    in_flight = LIMIT * 4  # records at once, each of which asks for up to four answers at once
    assert (tmp_path / "paid").stat().st_size <= calls + kills * in_flight


def test_law10_every_record_can_be_traced(undisturbed):
    lines = (undisturbed / "records.jsonl").read_text().splitlines()
    is_pair = ["chosen" in json.loads(line) for line in lines]
    dialogues, pairs = undisturbed / "dialogues.jsonl", undisturbed / "pairs.jsonl"
    dialogues.write_text("\n".join(x for x, pair in zip(lines, is_pair, strict=True) if not pair))
    pairs.write_text("\n".join(x for x, pair in zip(lines, is_pair, strict=True) if pair))
    records = [*read_jsonl(dialogues, Dialogue), *read_jsonl(pairs, Comparison)]
    assert len({record.id for record in records}) == len(records) == len(lines) > 20
    ledger = [json.loads(x) for x in (undisturbed / "ledger.jsonl").read_text().splitlines()]
    asked = {(x["model"], x["asked"].get("sampling")) for x in ledger if x["kind"] == "complete"}
    for record in records:
        lineage = record.lineage
        assert lineage.parents and lineage.seed == 3 and lineage.answer_by == "model"
        assert (lineage.model, lineage.sampling) in asked
    for record in records:
        if isinstance(record, Comparison):
            assert record.lineage.verdicts[0].judge == "reward:rater"
        else:
            assert set(ATTRIBUTES) < set(record.lineage.scores) and record.lineage.filters
