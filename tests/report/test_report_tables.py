"""The report's tables: changes are paired, falls are told, counts are right."""

import json

from report_run import RunWriter, conversation, dialogue, lineage

from flywright.report import cards, tables
from flywright.report.examples import examples
from flywright.report.made import mixes
from flywright.report.read import read_run


def write(run: RunWriter, stage: str, scores: dict[str, float], metric: str = "accuracy", **more):
    """An evaluation of one metric with exactly these scores by item id."""
    folder = run.step(f"1-eval-{stage}")
    rows = [
        {"id": name, "task": "t", "metric": metric, "score": score, "answer": f"{stage} says"}
        for name, score in scores.items()
    ]
    run.lines(folder / "items.jsonl", [{**row, **more} for row in rows])
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


def test_a_fall_beyond_its_interval_is_told_and_a_small_one_is_not(run):
    write(run, "code_sft", {str(i): 1.0 for i in range(40)})
    write(run, "sft", {str(i): float(i >= 20) for i in range(40)})
    write(run, "dpo", {str(i): float(i >= 21) for i in range(40)})
    write(run, "rpo1", {str(i): float(i >= 20) for i in range(40)})
    write(run, "rpo2", {str(i): 1.0 for i in range(40)})
    table = tables.stage_table(read_run(run.folder).evaluations, 1)
    cells = table.rows[0][2]
    assert [cell.mood for cell in cells] == ["", "fall", "", "", "rise"]
    assert table.falls == ["Accuracy from Code SFT to General SFT: −50.0 points"]
    assert cells[2].change == "−2.5"


def test_the_first_stage_is_not_compared_with_a_model_from_outside(run):
    write(run, "teacher", {"a": 1.0, "b": 1.0})
    write(run, "base", {"a": 0.0, "b": 0.0})
    table = tables.stage_table(read_run(run.folder).evaluations, 1)
    assert table.stages == ["Teacher", "Base"]
    assert [cell.change for cell in table.rows[0][2]] == ["", ""]


def test_a_metric_without_direction_neither_rises_nor_falls(run):
    for stage, words in (("sft", 5.0), ("dpo", 9.0)):
        write(run, stage, {str(i): words for i in range(9)}, "answer_words")
    table = tables.stage_table(read_run(run.folder).evaluations, 1)
    assert [cell.mood for cell in table.rows[0][2]] == ["", ""]
    assert table.rows[0][2][1].change == "+4.00"


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
    (found,) = tables.wins(read_run(run.folder).evaluations)
    assert (found.last, found.win, found.tie, found.loss) == ("RPO 1", 2, 1, 1)


def test_the_data_card_counts_what_the_records_say(run):
    folder = run.step("1-dialogues", facts={"filters": {"reward_below": 21}, "kept": 2})
    rows = [dialogue("a", filters=["reward"]), dialogue("b", "human", source="people")]
    run.lines(folder / "d.jsonl", rows)
    card = cards.mix_card(mixes(read_run(run.folder))[0])
    lines = dict(card.lines)
    assert (card.title, card.total) == ("Dialogues, turn 1", 2)
    assert lines["Sources"] == "synthetic 1 · people 1"
    assert lines["Answers by"] == "model 1 · human 1"
    assert lines["Filters passed"] == "reward 1"
    assert lines["Filters"] == "reward below 21"
    assert lines["Kept"] == "2"


def test_judges_are_shown_with_plain_or_detailed_facts(run):
    run.training("reward", 2, pair_accuracy={"mean": 0.9, "n": 50}, length_only=0.6)
    judge = {"llm": {"accuracy": 0.7, "n": 30, "note": "scripted"}, "reward": 0.8, "pairs": 300}
    judge["other"] = {"accuracy": 0.75, "decided": 4, "n": 9}
    run.step("1-comparisons", facts={"judge": judge})
    rows = cards.judge_rows(read_run(run.folder))
    assert [(row.name, row.accuracy, row.n) for row in rows] == [
        ("Reward model, held-out pairs", 0.9, 50),
        ("The longer answer wins, held-out pairs", 0.6, 0),
        ("LLM, turn 1", 0.7, 30),
        ("Reward model, turn 1", 0.8, 0),
        ("Other, turn 1", 0.75, 4),
    ]


def test_examples_show_a_rise_and_a_fall_with_every_stage(run):
    write(run, "base", {"up": 0.0, "same": 0.0, "down": 0.0})
    write(run, "sft", {"up": 0.0, "same": 0.0, "down": 1.0})
    write(run, "dpo", {"up": 1.0, "same": 0.0, "down": 0.0})
    found = examples(read_run(run.folder))
    assert [(example.prompt, example.fell) for example in found] == [
        ("item up", False),
        ("item down", True),
        ("item same", False),
    ]
    assert [answer.verdict for answer in found[0].answers] == ["wrong", "wrong", "right"]
    assert found[0].answers[0].text == "base says"


def test_an_example_finds_its_prompt_among_the_records_of_the_run(run):
    write(run, "sft", {"item1#2": 1.0})
    prompt = {"id": "item1", "conversation": conversation("Sort these."), "lineage": lineage("")}
    run.lines(run.folder / "steps" / "1-eval-sft@1" / "prompts.jsonl", [prompt])
    assert [example.prompt for example in examples(read_run(run.folder))] == ["Sort these."]


def test_answers_are_counted_once_and_not_from_items_of_reward(run):
    write(run, "sft", {"a": 1.0})
    path = run.folder / "steps" / "1-eval-sft@1" / "items.jsonl"
    with path.open("a") as stream:
        stream.write(json.dumps({"id": "a", "metric": "reward", "score": 2, "answer": ""}) + "\n")
    assert read_run(run.folder).evaluations[0].answers == {"a": "sft says"}


def test_durations_read_as_people_say_them():
    said = [cards.duration(seconds) for seconds in (0.25, 48, 200, 3599.7, 7500)]
    assert said == ["0.2 s", "48 s", "3 min 20 s", "1 h 00 min", "2 h 05 min"]


def test_a_step_of_training_that_was_written_twice_counts_once(run):
    folder = run.step("1-sft")
    rows = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 9.0}, {"step": 2, "loss": 2.0}]
    run.lines(folder / "metrics.jsonl", rows)
    assert read_run(run.folder).curves[0].columns == {"step": [1.0, 2.0], "loss": [3.0, 2.0]}
