"""What came from a model, a template or a source, over a run or any folder of record files."""

import json
import random
import resource
import time

import pytest
from report_run import comparison, conversation, dialogue, lineage
from typer.testing import CliRunner

from flywright.cli import app, main
from flywright.errors import UserError
from flywright.report.card import card_of_folder
from flywright.report.trace import trace, traced
from flywright.report.withdraw import touched, write_ids, write_without


def prompt(name, **more):
    said = {"source": "made", "template": "open_qa@0011aabb", **more}
    return {"id": name, "conversation": conversation("Why?"), "lineage": lineage("", **said)}


@pytest.fixture
def folder(tmp_path, run):
    """a <- b <- c by model "old"; d by another, judged by "old"; e apart; a dropped record."""
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    run.lines(folder / "p.jsonl", [prompt("a", model="old@r1"), prompt("e", model="new@r1")])
    talk = dialogue("b", parents=["a"])
    talk["lineage"]["model"] = "new@r1"
    run.lines(folder / "deep/talks.jsonl", [talk, {"note": "no record"}])
    pair = comparison("c", "llm", parents=["b"])
    judged = comparison("d", "llm", verdicts=[{"judge": "llm:old@r1", "preference": 1}])
    for one in (pair, judged):
        one["lineage"]["model"] = "new@r1"
    run.lines(folder / "deep/pairs.jsonl", [pair, judged])
    run.lines(
        folder / "dropped.jsonl", [{"reason": "near copy", "record": prompt("f", parents=["a"])}]
    )
    return folder


def by_file(found):
    return {
        row["file"]: (row["direct"], row["descendants"], row["records"]) for row in found.counts()
    }


def test_all_that_a_model_touched_is_found(folder):
    found = touched(folder, model="old")
    assert found.ids() == ["c", "d", "b", "f", "a"]
    assert found.roles == {"wrote": 1, "judged": 1}
    assert by_file(found) == {
        "deep/pairs.jsonl": (1, 1, 2),
        "deep/talks.jsonl": (0, 1, 1),
        "dropped.jsonl": (0, 1, 1),
        "p.jsonl": (1, 0, 2),
    }
    assert touched(folder, model="old@r1").ids() == found.ids()


def test_templates_and_sources_are_found(folder):
    assert set(touched(folder, template="0011aabb").ids()) == set("abcef")
    assert touched(folder, template="open_qa@0011aabb").rows.sum() == 5
    assert "e" in touched(folder, source="made").ids()
    with pytest.raises(UserError, match="no record has to do with 'elsewhere'"):
        touched(folder, source="elsewhere")


def test_the_files_without_them_hold_all_the_rest(folder, tmp_path):
    found, out = touched(folder, model="old"), tmp_path / "out"
    assert write_ids(found, tmp_path / "ids.txt") == 5
    assert (tmp_path / "ids.txt").read_text().split() == found.ids()
    assert write_without(found, out) == 5
    left = {p.relative_to(out).as_posix(): p.read_text().splitlines() for p in out.rglob("*.jsonl")}
    assert {name: len(lines) for name, lines in left.items()} == {
        "deep/pairs.jsonl": 0,
        "deep/talks.jsonl": 1,
        "dropped.jsonl": 0,
        "p.jsonl": 1,
    }
    assert left["p.jsonl"][0] == (folder / "p.jsonl").read_text().splitlines()[1]
    with pytest.raises(UserError, match="not an empty folder"):
        write_without(found, out)


def test_steps_that_learned_from_it_are_told(run):
    run.lines(run.step("1-dialogues") / "d.jsonl", [dialogue("t")])
    run.step("1-sft", inputs={"1-dialogues": "f"})
    run.step("1-dpo", inputs={"1-sft": "f"})
    run.step("1-other", inputs={})
    model = json.loads((run.folder / "steps/1-dialogues@1/d.jsonl").read_text())["lineage"]["model"]
    assert sorted(touched(run.folder, model=model).trained()) == ["1-dpo", "1-sft"]


def test_any_folder_is_traced(folder):
    told = traced(folder, "b")
    assert [one[1] for one in told["came_from"]] == ["a"]
    assert [one[1] for one in told["became"]] == ["c"]
    assert told["places"] == ["deep/talks.jsonl:1"]
    assert "dropped.jsonl:1" in "\n".join(trace(folder, "f"))


def test_the_verb(folder, tmp_path, monkeypatch, capsys):
    runner = CliRunner()
    out = runner.invoke(app, ["trace", str(folder), "--model", "old", "--json"])
    assert json.loads(out.stdout)["roles"] == {"wrote": 1, "judged": 1}
    out = runner.invoke(app, ["trace", str(folder), "b", "--json"])
    assert json.loads(out.stdout)["id"] == "b"
    assert (
        "what came from old" in runner.invoke(app, ["trace", str(folder), "--model", "old"]).stdout
    )
    (folder / "bad.jsonl").write_text("{\n")
    for arguments, said in (
        ([str(folder), "b"], "bad.jsonl:1: not valid JSON"),
        ([str(folder)], "name a record id, or one of"),
        ([str(folder), "b", "--model", "old"], "name a record id, or one of"),
        ([str(tmp_path / "nowhere"), "b"], "not a folder"),
    ):
        monkeypatch.setattr("sys.argv", ["flywright", "trace", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        told = capsys.readouterr().err
        assert (stop.value.code, told.count("\n")) == (2, 1) and said in told


def test_a_record_out_of_shape_is_named(folder):
    (folder / "z.jsonl").write_text(json.dumps({**prompt("z"), "lineage": 3}) + "\n")
    with pytest.raises(UserError, match=r"z.jsonl:1: not a record"):
        touched(folder, model="old")
    with pytest.raises(UserError, match=r"z.jsonl:1: not a record"):
        card_of_folder(folder, {})


@pytest.mark.slow
def test_a_million_records(tmp_path):
    """Memory grows by less than 300 MB; the seconds are printed."""
    rng = random.Random(1)
    with (tmp_path / "p.jsonl").open("w") as prompts, (tmp_path / "d.jsonl").open("w") as talks:
        for n in range(500_000):
            made = {"source": "made", "model": f"m{n % 3}@r1", "parents": ["Rivers"]}
            messages = [{"role": "user", "content": f"Why {rng.random()}?"}]
            row = {"id": f"{n:012x}", "conversation": {"messages": messages}, "lineage": made}
            prompts.write(json.dumps(row) + "\n")
            made = {"source": "talk", "model": "policy", "parents": [row["id"]]}
            row = {**row, "id": f"d{n:011x}", "lineage": made}
            talks.write(json.dumps(row) + "\n")
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    found = touched(tmp_path, model="m1")
    grew = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"1,000,000 records: {time.monotonic() - started:.1f} s, {grew / 1024:.0f} MB more")
    assert found.rows.sum() == 333_334 and found.direct.sum() == 166_667
    assert grew < 300 * 1024
