"""stages.json and facts.json: the contract of HOUSE section 7, counted by hand."""

import pytest
from report_run import STAGES, comparison, conversation, dialogue, lineage

from flywright.report.artifacts import read_run
from flywright.report.data import synthetic_share
from flywright.report.facts import facts, stages


def test_stage_rows_come_in_the_order_in_which_they_happened(whole_run):
    rows = stages(read_run(whole_run.folder))
    assert [(row["turn"], row["stage"]) for row in rows] == [
        *((1, stage) for stage in STAGES),
        *((2, stage) for stage in STAGES[1:]),
    ]
    for row in rows:
        assert set(row) == {"turn", "stage", "metrics"}
        assert {"accuracy", "instruction_following", "code", "reward"} <= set(row["metrics"])
        for value in row["metrics"].values():
            assert set(value) == {"mean", "low", "high", "n"}
            assert value["low"] <= value["mean"] <= value["high"]
            assert value["n"] == 40


def test_rows_come_in_the_order_of_the_road_also_where_one_was_redone(run):
    for stage, number in (("dpo", 3), ("rpo1", 4), ("sft", 2)):
        folder = run.step(f"1-eval-{stage}", number=number)
        (folder / "items.jsonl").write_text("")
        (folder / "results.json").write_text("{}")
    assert [row["stage"] for row in stages(read_run(run.folder))] == ["sft", "dpo", "rpo1"]


def test_facts_pass_through_what_the_steps_found(whole_run):
    found = facts(read_run(whole_run.folder))
    assert found["reward_model"]["pair_accuracy"] == 0.86
    assert found["reward_model"]["length_only"] == 0.6
    assert found["judge"]["llm"]["accuracy"] == 0.71
    assert set(found["judge"]["by_turn"]) == {"1", "2"}
    assert found["steps"]["1-prompts"] == {"seconds": 12.5, "tokens": 1000, "items": 2}
    assert found["judges"]["generator"]["scripted"] is True
    assert found["verdict"]["2"]["gain"]["mean"]["mean"] == 0.05
    assert len(found["steps"]) == 45


def test_one_turn_of_judges_is_passed_through_as_it_is(run):
    judge = {"llm": {"accuracy": 0.7, "decided": 4, "n": 5}}
    run.step("1-comparisons", facts={"judge": judge})
    assert facts(read_run(run.folder))["judge"] == judge


def test_synthetic_share_counts_each_distinct_sft_and_preference_record(run):
    code = run.step("1-code")
    run.lines(code / "code.jsonl", [dialogue("a"), dialogue("b", "program")])
    talks = run.step("1-dialogues")
    run.lines(talks / "dialogues.jsonl", [dialogue("c"), dialogue("d", "human")])
    (talks / "ledger.jsonl").write_text('{"a torn line')  # the ledger mends itself; not a record
    pairs = run.step("1-comparisons")
    run.lines(pairs / "dpo.jsonl", [comparison("e")])
    run.lines(pairs / "rpo.jsonl", [comparison("e"), comparison("f")])  # e again, looser filter
    later = run.step("2-dialogues")
    run.lines(later / "dialogues.jsonl", [dialogue("d", "human"), dialogue("g")])
    # a, c, e, f, g by a model; b by a program, d by people; e and d once each
    assert synthetic_share(read_run(run.folder)) == pytest.approx(5 / 7)


def test_ratings_prompts_and_other_steps_are_not_in_the_share(run):
    rating = {"id": "r", "conversation": conversation("Q", "A"), "helpfulness": 1.0}
    run.lines(run.step("ratings") / "r.jsonl", [{**rating, "lineage": lineage("model")}])
    prompt = {"id": "p", "conversation": conversation("Q"), "lineage": lineage("model")}
    run.lines(run.step("1-prompts") / "p.jsonl", [prompt])
    run.lines(run.step("1-sft") / "d.jsonl", [dialogue("d")])
    assert synthetic_share(read_run(run.folder)) is None


def test_only_finished_steps_and_their_newest_version_count(run):
    run.step("1-dpo", 2, seconds=2.0)
    run.step("1-dpo", 10, seconds=10.0)
    (run.folder / "steps" / "1-rpo1@1").mkdir()  # no manifest: not finished
    steps = facts(read_run(run.folder))["steps"]
    assert {name: step["seconds"] for name, step in steps.items()} == {"1-dpo": 10.0}
