"""Law 10 for `flywright synth`: killed, resumed, shared by workers or stopped by a budget, a flow
ends with the same file, and pays again for no more than the calls that were in flight."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest

from flywright.ask import Stopped
from flywright.errors import FlywrightError, UserError
from flywright.recipe.flow_run import run_one
from flywright.recipe.flow_workers import NUMBER, number_here
from flywright.records import Conversation, Dialogue, Lineage, Prompt, read_jsonl, write_jsonl
from flywright.synth import parse

RECORDS, AT_ONCE = 48, 8
CALLS = 3 * RECORDS  # an answer, the user's next turn, an answer


def prompts(count=RECORDS):
    return [
        Prompt(id=f"p{n}", conversation=Conversation.of(f"Tell {n}."), lineage=Lineage(source="t"))
        for n in range(count)
    ]


def prepared(folder, endpoint, records=RECORDS, more=()):
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / "data.jsonl", prompts(records))
    lines = [f'out = "{folder}/made.jsonl"', f'data = "{folder}/data.jsonl"', "shard_records = 8"]
    lines += [*more, f'generator = {{model = "{endpoint.url}", concurrency = {AT_ONCE}}}']
    lines += ["synth.user_turns = 2", "patience.retries = 1"]
    (folder / "s.toml").write_text("\n".join(lines))
    return folder / "s.toml"


def made(folder):
    return (folder / "made.jsonl").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, make_endpoint):
    folder = tmp_path_factory.mktemp("undisturbed")
    with make_endpoint() as endpoint:
        run_one("dialogues", prepared(folder, endpoint), [])
        assert endpoint.calls == CALLS and endpoint.most <= AT_ONCE
    records = list(read_jsonl(folder / "made.jsonl", Dialogue))
    assert [record.lineage.parents[0] for record in records] == [f"p{n}" for n in range(RECORDS)]
    return folder


def started(path, *options):
    command = [sys.executable, "-m", "flywright.cli", "synth", "dialogues", str(path), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(endpoint, calls, process):
    while endpoint.calls < calls and process.poll() is None:
        time.sleep(0.001)


def test_law10_killed_at_random_moments_and_resumed(undisturbed, tmp_path, endpoint):
    path, draw = prepared(tmp_path, endpoint), random.Random()
    for _ in range(2):
        process = started(path)
        until(endpoint, endpoint.calls + draw.randint(5, CALLS // 3), process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "made.jsonl").exists()
    run_one("dialogues", path, [])
    assert made(tmp_path) == made(undisturbed)
    assert CALLS <= endpoint.calls <= CALLS + 2 * AT_ONCE


def test_law10_nothing_is_paid_twice(tmp_path, endpoint, monkeypatch):
    path, one = prepared(tmp_path, endpoint), ["synth.user_turns=1"]
    run_one("dialogues", path, one)
    first = made(tmp_path)
    (tmp_path / "made.jsonl").unlink()
    run_one("dialogues", path, one)
    assert made(tmp_path) == first and endpoint.calls == RECORDS
    shutil.rmtree(tmp_path / "made.work" / "shards")  # replayed from the ledger alone
    (tmp_path / "made.jsonl").unlink()
    run_one("dialogues", path, one)
    assert made(tmp_path) == first and endpoint.calls == RECORDS
    write_jsonl(tmp_path / "data.jsonl", prompts(RECORDS + 1))
    run_one("dialogues", path, one)
    assert made(tmp_path).startswith(first) and endpoint.calls == RECORDS + 1
    write_jsonl(tmp_path / "data.jsonl", reversed(prompts()))
    (tmp_path / "data.jsonl").rename(tmp_path / "another name.jsonl")
    (tmp_path / "other.toml").write_text(path.read_text())
    run_one("dialogues", tmp_path / "other.toml", [*one, f"data='{tmp_path}/another name.jsonl'"])
    assert made(tmp_path).splitlines() == first.splitlines()[::-1]
    spoken = parse.spoken
    monkeypatch.setattr(parse, "spoken", lambda *said: spoken(*said).upper())
    monkeypatch.setattr("flywright.recipe.flow_run._code_hash", lambda: "edited")
    run_one("dialogues", path, [*one, f"data='{tmp_path}/another name.jsonl'"])
    assert made(tmp_path) != first and endpoint.calls == RECORDS + 1
    assert all(
        one.conversation.last.isupper() for one in read_jsonl(tmp_path / "made.jsonl", Dialogue)
    )


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_law10_workers_make_the_same_and_one_may_be_killed(
    undisturbed, tmp_path, endpoint, workers
):
    endpoint.gate_open = False
    process = started(prepared(tmp_path, endpoint), "--workers", str(workers))
    beats = tmp_path / "made.work" / "workers"
    while len(names := [path.stem for path in beats.glob("*.json")]) < workers:
        assert process.poll() is None
        time.sleep(0.01)
    while endpoint.in_flight < AT_ONCE * 1.5:  # a helper's calls among them
        time.sleep(0.01)
    doomed = next(int(name.split(":")[1]) for name in names if f":{process.pid}:" not in name)
    endpoint.gate_open = True
    until(endpoint, CALLS // 3, process)
    os.kill(doomed, signal.SIGKILL)
    said, wrong = process.communicate()
    assert process.returncode == 0, wrong
    assert f"{RECORDS} records" in said and "ended with status -9" in said
    assert made(tmp_path) == made(undisturbed)
    assert CALLS <= endpoint.calls <= CALLS + AT_ONCE


def test_law10_a_budget_leaves_a_valid_dataset_and_more_goes_on(undisturbed, tmp_path, endpoint):
    path = prepared(tmp_path, endpoint)
    with pytest.raises(Stopped, match=r"budget of 3,000 tokens is spent") as stopped:
        run_one("dialogues", path, ["budget.tokens=3000", "synth.concurrency=4"])
    assert stopped.value.exit_status == 75
    records = list(read_jsonl(tmp_path / "made.jsonl", Dialogue))
    assert 0 < len(records) < RECORDS and f"{len(records)} records" in str(stopped.value)
    calls = endpoint.calls
    with pytest.raises(Stopped):  # what earlier runs have spent counts
        run_one("dialogues", path, ["budget.tokens=3000", "synth.concurrency=4"])
    assert endpoint.calls == calls < CALLS
    run_one("dialogues", path, ["budget.tokens=1000000", "synth.concurrency=4"])
    assert made(tmp_path) == made(undisturbed) and endpoint.calls == CALLS


def test_law10_failures_are_listed_and_tried_again(undisturbed, tmp_path, make_endpoint):
    with make_endpoint(["badjson=0.1"]) as faulty:
        with pytest.raises(FlywrightError, match=r"failed, listed in .*made\.failed\.jsonl"):
            run_one("dialogues", prepared(tmp_path, faulty), ["patience.retries=0"])
        failed = [json.loads(x) for x in (tmp_path / "made.failed.jsonl").read_text().splitlines()]
        assert {failure["fault"] for failure in failed} == {"malformed"}
        records = list(read_jsonl(tmp_path / "made.jsonl", Dialogue))
        assert len(records) == RECORDS - len(failed)
    with make_endpoint() as sound:
        run_one("dialogues", prepared(tmp_path, sound), [])
        assert sound.calls < CALLS
    assert made(tmp_path) == made(undisturbed)
    assert not (tmp_path / "made.failed.jsonl").exists()


def test_law10_an_endpoint_that_is_down_pauses_the_flow_and_ends_it(tmp_path, make_endpoint):
    with make_endpoint(["error500=1"]) as down:
        path = prepared(tmp_path, down)
        tries = ["patience.retries=0", "patience.pause_seconds=0.1", "patience.pauses=2"]
        with pytest.raises(Stopped, match=r"questions failed \(overload: .*status 500"):
            run_one("dialogues", path, tries)
        assert down.calls <= 20 + 4 * AT_ONCE
    told = (tmp_path / "made.log").read_text()
    assert told.count("asking again in 0.1 s") == 2


def test_law10_a_fault_of_the_program_ends_the_flow_early(
    undisturbed, tmp_path, endpoint, monkeypatch
):
    path, spoken = prepared(tmp_path, endpoint, records=400), parse.spoken

    def broken(*said):
        return {}["no such key"]

    monkeypatch.setattr(parse, "spoken", broken)
    with pytest.raises(
        FlywrightError, match=r"most records meet a fault of the program: KeyError: 'no"
    ) as met:
        run_one("dialogues", path, [])
    assert met.value.exit_status == 1
    assert "KeyError: 'no such key' (" in str(met.value) and f"{__file__}:" in str(met.value)
    assert endpoint.calls <= 20 + 4 * AT_ONCE < CALLS
    monkeypatch.setattr(parse, "spoken", spoken)
    write_jsonl(tmp_path / "data.jsonl", prompts())
    run_one("dialogues", path, [])
    assert made(tmp_path) == made(undisturbed) and endpoint.calls == CALLS  # none paid for twice


def test_law10_a_bad_line_of_data_is_told_before_anything_is_paid(tmp_path, endpoint):
    path = prepared(tmp_path, endpoint)
    with (tmp_path / "data.jsonl").open("a") as stream:
        stream.write('{"id": "last"}\n')
    with pytest.raises(UserError, match=rf"data\.jsonl:{RECORDS + 1}: not a Prompt"):
        run_one("dialogues", path, [])
    assert endpoint.calls == 0


def test_law10_an_endpoint_that_refuses_every_call_ends_the_flow(tmp_path, make_endpoint):
    with make_endpoint(status=401) as closed:
        path = prepared(tmp_path, closed, records=400)
        with pytest.raises(Stopped, match=r"questions failed \(failed: .*status 401: no such key"):
            run_one("dialogues", path, [])
        assert closed.calls <= 20 + 2 * AT_ONCE


def test_law10_a_reward_server_is_asked_again_where_it_fails(tmp_path, make_endpoint):
    with make_endpoint(["rate429=0.3", "error500=0.1"]) as busy, make_endpoint() as sound:
        path = prepared(tmp_path, sound, records=16)
        more = [f"reward='{busy.url}'", "patience.retries=5", "synth.dialogue_reward=-99"]
        run_one("dialogues", path, more)
    assert len(list(read_jsonl(tmp_path / "made.jsonl", Dialogue))) == 16


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
def test_law10_on_a_ray_cluster(undisturbed, tmp_path, endpoint):
    run_one("dialogues", prepared(tmp_path, endpoint), [], workers=2, ray="local")
    assert made(tmp_path) == made(undisturbed) and endpoint.calls == CALLS


@pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed")
def test_without_ray_it_is_said_what_to_install(tmp_path, endpoint):
    with pytest.raises(UserError, match=r"--ray needs ray: install flywright\[scale\]"):
        run_one("dialogues", prepared(tmp_path, endpoint), [], workers=2, ray="auto")


def test_a_slurm_array_needs_only_its_number(monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    assert number_here() == 7
    monkeypatch.setenv(NUMBER, "2")
    assert number_here() == 2
