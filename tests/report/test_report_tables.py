"""The report's tables: changes are paired, falls are told, counts are right."""

import json

from report_run import REWARD, RunWriter, conversation, dialogue, lineage

from flywright.report import tables
from flywright.report.artifacts import read_run
from flywright.report.data import cards
from flywright.report.examples import examples
from flywright.report.facts import judge_rows
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
    table = tables.stage_table(read_run(run.folder).evaluations, 1)
    cells = table.rows[0][2]
    assert [cell.mood for cell in cells] == ["", "fall", "", "", "rise"]
    assert [cell.change for cell in cells] == ["", "−50.0", "−2.5", "+2.5", "+50.0"]


def test_the_first_stage_is_not_compared_with_a_model_from_outside(run):
    write(run, "teacher", {"a": 1.0, "b": 1.0})
    write(run, "base", {"a": 0.0, "b": 0.0})
    table = tables.stage_table(read_run(run.folder).evaluations, 1)
    assert table.stages == ["Teacher", "Base"]
    assert [cell.change for cell in table.rows[0][2]] == ["", ""]


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


def test_wins_ties_and_losses_are_counted_item_by_item(run):
    write(run, "sft", {"a": 0.0, "b": 1.0, "c": 1.0, "d": 0.0})
    write(run, "dpo", {"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.0})
    write(run, "rpo1", {"a": 1.0, "b": 1.0, "c": 0.0, "d": 1.0})
    found = tables.wins(read_run(run.folder).evaluations)
    assert found == [("Accuracy, RPO 1, turn 1", (2, 1, 1))]


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
    folder = run.step("1-dialogues", facts={"flows": flows, "copies": 4, "contaminated": 0})
    rows = [dialogue("a", filters=["reward"]), dialogue("b", "human", source="people")]
    run.lines(folder / "d.jsonl", rows)
    ((title, how_many, lines),) = cards(read_run(run.folder))
    assert (title, how_many) == ("Dialogues, turn 1", "2 records")
    said = dict(lines)
    assert said["Sources"] == "synthetic 1 · people 1"
    assert said["Answers by"] == "model 1 · human 1"
    assert said["Filters passed"] == "reward 1"
    assert said["In → out"] == "talk 40 → 25 · filter 25 → 2"
    assert said["Dropped"] == "dull 20 · bad 11 · copies 4 · request failed 2"


def test_judges_stand_beside_the_reward_model_and_length_alone(run):
    run.training("reward", 2, **REWARD)
    judge = {"llm": {"accuracy": 0.7, "decided": 20, "n": 30}}
    run.step("1-comparisons", facts={"judge": judge})
    assert judge_rows(read_run(run.folder)) == [
        ("Reward model, held-out pairs", 0.86, 50),
        ("The longer answer wins, held-out pairs", 0.6, 50),
        ("LLM, turn 1", 0.7, 20),
    ]


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
