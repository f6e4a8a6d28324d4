"""Rows held against each other item by item: the mean of three metrics, and kinds of items."""

import pytest

from flywright.evals.compare import by_kind, compare
from flywright.evals.items import Item
from flywright.records import write_jsonl


def row(folder, scores, metrics=("accuracy", "instruction_following", "code")):
    items = [
        Item(id=f"{metric}{place}", task=metric, metric=metric, score=score, answer="")
        for metric in metrics
        for place, score in enumerate(scores[metric])
    ]
    write_jsonl(folder / "items.jsonl", items)
    return folder


@pytest.fixture
def rows(tmp_path):
    before = {"accuracy": [0, 0, 0, 0], "instruction_following": [0, 1], "code": [1]}
    after = {"accuracy": [1, 0, 0, 0], "instruction_following": [1, 1], "code": [0]}
    return row(tmp_path / "a", before), row(tmp_path / "b", after)


def test_the_mean_weighs_metrics_alike_whatever_their_items(rows):
    found = compare(*rows)
    assert found["mean"]["mean"] == pytest.approx((0.25 + 0.5 - 1.0) / 3)
    assert found["mean"]["n"] == 7


def test_there_is_no_mean_without_all_three(tmp_path):
    scores = {"accuracy": [0.0], "code": [1.0]}
    folders = [row(tmp_path / name, scores, ("accuracy", "code")) for name in "ab"]
    assert "mean" not in compare(*folders)


def test_kinds_of_items_are_told_apart(rows):
    kinds = {"accuracy0": "random", "accuracy1": "random", "code0": ""}
    found = by_kind(*rows, kinds)
    assert set(found) == {"random", "none"}, "items of no stated kind are left out"
    assert (found["random"]["first"], found["random"]["second"]) == (0.0, 0.5)
    assert found["none"]["difference"]["mean"] == -1.0 and found["none"]["n"] == 1
