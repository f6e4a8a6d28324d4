"""The report's tables: changes are paired, falls are told, counts are right."""

import json

import pytest
from report_run import RunWriter, conversation, dialogue, lineage

from flywright.report import tables
from flywright.report.artifacts import read_run
from flywright.report.data import asked, cards
from flywright.report.examples import examples
from flywright.report.page import duration


def write(run: RunWriter, stage: str, scores: dict[str, float], metric: str = "accuracy", **more):
    """An evaluation of one metric with exactly these scores by item id."""
    folder = run.step(f"1-eval-{stage}")
    rows = [
        {"id": name, "task": "t", "metric": metric, "score": score, "answer": f"{stage} says"}
        for name, score in scores.items()
    ]
    run.lines(folder / "items.jsonl", [{**row, **more} for row in rows])
    run.prompts(folder, {name.partition("#")[0]: f"item {name}" for name in scores})
    mean = sum(scores.values()) / len(scores)
    value = {"mean": mean, "low": mean, "high": mean, "n": len(scores)}
    results = {"turn": 1, "stage": stage, "model": "m", "metrics": {metric: value}}
    (folder / "results.json").write_text(json.dumps(results))


def test_a_change_is_paired_over_the_items_that_both_answered(run):
    write(run, "sft", {"a": 0.0, "b": 1.0, "only_before": 1.0})
    write(run, "dpo", {"a": 1.0, "b": 1.0, "only_after": 0.0})
    before, after = read_run(run.folder).evaluations
    difference = tables.change(after, before, "accuracy")
    assert difference is not None
    assert (difference.mean, difference.n) == (0.5, 2)
    assert tables.change(after, before, "code") is None


def test_a_fall_beyond_its_interval_is_marked_and_a_small_one_is_not(run):
    write(run, "code_sft", {str(i): 1.0 for i in range(40)})
    write(run, "sft", {str(i): float(i >= 20) for i in range(40)})
    write(run, "dpo", {str(i): float(i >= 21) for i in range(40)})
    write(run, "rpo1", {str(i): float(i >= 20) for i in range(40)})
    write(run, "rpo2", {str(i): 1.0 for i in range(40)})
    table = tables.stage_table(read_run(run.folder), 1)
    cells = [cells[0] for *_, cells in table.rows]
    assert [cell.mood for cell in cells] == ["", "fall", "", "", "rise"]
    assert [cell.change for cell in cells] == ["", "−50.0", "−2.5", "+2.5", "+50.0"]
    (fall,) = table.falls
    assert fall.startswith("General SFT, turn 1: Accuracy is 50.0 points below Code SFT (95 %")
    assert fall.endswith("40 shared items).")


def test_the_first_stage_is_not_compared_with_a_model_from_outside(run):
    write(run, "teacher", {"a": 1.0, "b": 1.0})
    write(run, "base", {"a": 0.0, "b": 0.0})
    table = tables.stage_table(read_run(run.folder), 1)
    assert [(name, bool(note)) for name, note, *_ in table.rows] == [
        ("Teacher", True),
        ("Base", False),
    ]
    assert [cells[0].change for *_, cells in table.rows] == ["", ""]


def test_the_generator_of_a_later_turn_is_what_the_turn_before_ended_with(run):
    for turn in (1, 2):
        for stage, rate in (("base", 0.1), ("sft", 0.5)):
            run.evaluation(turn, stage, rate + 0.1 * turn, count=20)
    first, second = (tables.stage_table(read_run(run.folder), turn) for turn in (1, 2))
    assert [name for name, *_ in first.rows] == ["Base", "General SFT"]
    assert [name for name, *_ in second.rows] == ["General SFT, turn 1", "Base", "General SFT"]
    assert second.rows[0][1].startswith("generator")
    assert second.rows[1][3][0].change == ""  # a base does not come from the generator


def test_the_mean_is_of_three_metrics_whatever_their_items_and_is_paired(run):
    run.evaluation(1, "sft", 0.3, count=40, code=0.3)
    run.evaluation(1, "dpo", 0.6, count=40, code=0.6)
    before, after = read_run(run.folder).evaluations
    found, difference = tables.measured(after, "mean"), tables.change(after, before, "mean")
    assert found is not None
    assert difference is not None
    three = [after.metrics[name]["mean"] for name in tables.PARTS]
    assert found.mean == pytest.approx(sum(three) / 3)
    assert found.n == difference.n == 120
    assert difference.low > 0
    stated = {"mean": 0.25, "low": 0.2, "high": 0.3, "n": 7}
    after.metrics["mean"] = stated
    assert tables.measured(after, "mean") == tables.interval(stated)
    del after.metrics["mean"]
    after.scores.pop("code")
    assert tables.measured(after, "mean") is None


def test_far_metrics_stand_apart(run):
    folder = run.step("1-eval-sft")
    rows = [{"id": "a", "metric": "code", "score": 1.0}]
    rows += [{"id": f"f{i}", "metric": "code", "score": 0.0, "split": "far"} for i in range(3)]
    run.lines(folder / "items.jsonl", rows)
    one = {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 1}
    metrics = {"code": one, "code_far": {**one, "mean": 0.0, "low": 0.0, "high": 0.0, "n": 3}}
    results = {"turn": 1, "stage": "sft", "metrics": metrics}
    (folder / "results.json").write_text(json.dumps(results))
    near, far = (tables.stage_table(read_run(run.folder), 1, far) for far in (False, True))
    assert [name for name, _ in near.columns] == [name for name, _ in far.columns] == ["Code"]
    assert [(items, cells[0].mean) for *_, items, cells in (*near.rows, *far.rows)] == [
        (1, "100.0"),
        (3, "0.0"),
    ]


def test_far_items_belong_to_the_metric_that_tells_of_them_apart(run):
    folder = run.step("1-eval-sft")
    rows = [
        {"id": "a", "metric": "accuracy", "score": 0.0, "split": "near"},
        {"id": "b", "metric": "accuracy", "score": 1.0, "split": "far"},
        {"id": "c", "metric": "code", "score": 1.0, "split": "far"},
    ]
    run.lines(folder / "items.jsonl", rows)
    metrics = {name: {"mean": 0.5, "low": 0, "high": 1, "n": 1} for name in ("accuracy", "code")}
    metrics["accuracy_far"] = metrics["accuracy"]
    results = {"turn": 1, "stage": "sft", "metrics": metrics}
    (folder / "results.json").write_text(json.dumps(results))
    scores = read_run(run.folder).evaluations[0].scores
    assert scores == {"accuracy": {"a": 0.0}, "accuracy_far": {"b": 1.0}, "code": {"c": 1.0}}


def test_the_data_card_counts_what_records_and_facts_say(run):
    flows = {
        "talk": {"in": 40, "ok": 30, "out": 25, "failed": 2, "dropped: bad": 8},
        "filter": {
            "in": 25,
            "ok": 2,
            "out": 2,
            "failed": 0,
            "dropped: bad": 3,
            "dropped: dull": 20,
        },
    }
    quality = {"dpo": {"in": 2, "out": 1, "exempt": 0, "dropped": 1}}
    facts = {"flows": flows, "copies": 4, "contaminated": 0, "quality_filter": quality}
    folder = run.step("1-dialogues", facts=facts)
    rows = [dialogue("a", filters=["reward"]), dialogue("b", "human", source="people")]
    run.lines(folder / "d.jsonl", rows)
    (card,) = cards(read_run(run.folder))
    assert (card["step"].title, card["count"]) == ("Dialogues, turn 1", 2)
    said = card["lines"]
    assert said["Sources"] == "synthetic 1 · people 1"
    assert said["Answers by"] == "model 1 · human 1"
    assert said["Filters passed"] == "reward 1"
    assert said["Dropped"] == "copies 4"
    assert card["flows"] == [
        ("talk", 40, 25, "bad 8 · failed 2"),
        ("filter", 25, 2, "dull 20 · bad 3"),
        ("quality for DPO", 2, 1, "dropped 1"),
    ]


def test_calls_are_counted_from_the_ledger_and_a_torn_line_is_none(run):
    folder = run.step("1-dialogues")
    reply = {"kind": "complete", "reply": {"text": "A", "completion_tokens": 5}}
    run.lines(folder / "ledger.jsonl", [reply, {"kind": "score", "reply": {}}, reply])
    with (folder / "ledger.jsonl").open("a") as stream:
        stream.write('{"kind": "comp')
    (step,) = read_run(run.folder).steps
    assert asked(step) == (2, 10)


def test_examples_show_a_rise_and_a_fall_with_every_stage(run):
    write(run, "base", {"up": 0.0, "same": 0.0, "down": 0.0})
    write(run, "sft", {"up": 0.0, "same": 0.0, "down": 1.0})
    write(run, "dpo", {"up": 1.0, "same": 0.0, "down": 0.0})
    found = examples(read_run(run.folder))
    assert [(prompt, fell) for prompt, fell, _ in found] == [
        ("item up", False),
        ("item down", True),
        ("item same", False),
    ]
    assert [(stage, item.score) for stage, item in found[0][2]] == [
        ("Base", 0.0),
        ("General SFT", 0.0),
        ("DPO", 1.0),
    ]
    assert found[0][2][0][1].answer == "base says"


def test_the_generator_answers_first_in_an_example(run):
    write(run, "teacher", {"up": 1.0})
    write(run, "base", {"up": 0.0})
    write(run, "sft", {"up": 1.0})
    ((_, fell, answers),) = examples(read_run(run.folder))
    assert not fell
    assert [stage for stage, _ in answers] == ["Teacher (generator)", "Base", "General SFT"]


def test_an_example_of_several_messages_says_who_spoke(run):
    write(run, "sft", {"item1#2": 1.0})
    talk = {
        "id": "item1",
        "conversation": conversation("Hi.", "Yes?", "Sort."),
        "lineage": lineage(""),
    }
    run.lines(run.folder / "steps" / "1-eval-sft@1" / "prompts.jsonl", [talk])
    ((prompt, _, _),) = examples(read_run(run.folder))
    assert prompt == "user: Hi.\nassistant: Yes?\nuser: Sort."


def test_durations_read_as_people_say_them():
    said = [duration(seconds) for seconds in (0.25, 48, 200, 3599.7, 7500)]
    assert said == ["0.2 s", "48 s", "3 min 20 s", "1 h 00 min", "2 h 05 min"]
