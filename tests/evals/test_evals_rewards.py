"""Reward models on pairs and ratings; what people said of two answers side by side."""

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywright.annotate.labels import PairLabel, View
from flywright.annotate.store import add_label, import_items
from flywright.ask import ScriptedScorer, TooLong
from flywright.errors import UserError
from flywright.evals import people, responses, rewards
from flywright.evals.run import Results, evaluate
from flywright.evals.suite import run_tasks
from flywright.records import ATTRIBUTES, Comparison, Conversation, Lineage, write_jsonl

TASKS = {task.name: task for task in rewards.REWARDS}
SUBSETS = {"alpacaeval-easy": 1, "math-prm": 1, "hep-go": 0, "donotanswer": 1, "mt-bench-hard": 0}


def put(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def by_length(conversation: Conversation) -> dict[str, float]:
    return dict.fromkeys(ATTRIBUTES, 0.0) | {"helpfulness": len(conversation.last) / 10}


def bench(folder: Path) -> Path:
    rows = [
        {
            "id": number,
            "subset": subset,
            "prompt": [{"role": "user", "content": "q"}] if number else "q",
            "chosen": "long" if right else "x",
            "rejected": "no" if number != 4 else "y",
        }
        for number, (subset, right) in enumerate(SUBSETS.items())
    ]
    put(folder / "rewardbench/filtered.jsonl", rows)
    return folder


def scores(task: str, data: Path) -> Results:
    prompts = list(TASKS[task].load(data))
    scorer = ScriptedScorer(by_length)
    done = evaluate(None, prompts, out=data / "out", task=TASKS[task], scorer=scorer)
    return asyncio.run(done)


def test_rewardbench_sections_weigh_subsets_by_published_counts(tmp_path: Path) -> None:
    found = scores("rewardbench", bench(tmp_path)).metrics
    assert found["reasoning"]["mean"] == pytest.approx(984 / (984 + 164))
    assert [found[name]["mean"] for name in ("chat", "chat_hard", "safety")] == [1, 0, 1]
    assert found["score"]["mean"] == pytest.approx((1 + 0 + 1 + 984 / 1148) / 4)
    assert found["tie"]["mean"] == 0.2  # the pair of equally long answers, which is wrong
    assert found["pair_accuracy"]["mean"] == 0.6
    assert found["length_correlation"]["mean"] == pytest.approx(1)
    assert found["length_only"]["mean"] == 0.7


def test_stored_scores_count_as_a_models(tmp_path: Path) -> None:
    prompts = list(TASKS["rewardbench"].load(bench(tmp_path)))
    rows = [{"id": number, "scores_chosen": 1.5, "scores_rejected": 2} for number in range(5)]
    told, answers = responses.match(put(tmp_path / "scores.jsonl", rows), prompts)
    done = evaluate(None, told, answers=answers, out=tmp_path / "o", task=TASKS["rewardbench"])
    assert asyncio.run(done).metrics["score"]["mean"] == 0


def test_calibration_error_of_a_calibrated_model_is_small() -> None:
    random = np.random.default_rng(0)
    margin = random.normal(0, 2, 50_000)
    truth = random.random(50_000) < 1 / (1 + np.exp(-margin))
    assert rewards.calibration_error(np.where(truth, margin, -margin)) < 0.01
    assert rewards.calibration_error(np.where(truth, 5 * margin, -5 * margin)) > 0.1
    assert rewards.calibration_error(np.full(10, -20.0)) == pytest.approx(1)


def test_ratings_give_correlation_and_error_of_each_attribute(tmp_path: Path) -> None:
    rows = [
        {"prompt": "q", "response": "a" * n, **dict.fromkeys(ATTRIBUTES, 0), "helpfulness": n // 10}
        for n in (10, 20, 40)
    ]
    put(tmp_path / "preference/helpsteer2/validation.jsonl", rows)
    found = scores("helpsteer2", tmp_path).metrics
    assert found["helpfulness_pearson"]["mean"] == pytest.approx(1)
    assert found["helpfulness_error"]["mean"] == 0
    assert found["verbosity_pearson"]["mean"] == 0  # nothing varies


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (
            {"prompt": "q", "chosen": "a", "subset": "s"},
            "filtered.jsonl:1: a row without 'rejected'",
        ),
        ({"prompt": [], "chosen": "a"}, "filtered.jsonl:1: its messages do not end with a user's"),
    ],
)
def test_bad_rows_are_refused_by_line(tmp_path: Path, row: Any, complaint: str) -> None:
    put(tmp_path / "rewardbench/filtered.jsonl", [row])
    with pytest.raises(UserError, match=complaint):
        list(TASKS["rewardbench"].load(tmp_path))


VOTES = [  # two of three see "one" as ours does; lengths as perceived
    ("p1", "ann", 1, "right"),
    ("p1", "bob", 1, "right"),
    ("p1", "cy", 0, "too long"),
    ("p2", "ann", -1, "right"),
    ("p2", "bob", -1, "too short"),
]


def human(data: Path) -> Mapping[str, Mapping[str, float]]:
    done = run_tasks(None, ["human"], data, data / "out")
    return asyncio.run(done)["human"].metrics


def test_side_by_side_records(tmp_path: Path) -> None:
    rows = [
        {"id": i, "annotator": who, "preference": vote, "length": length, "category": "qa"}
        for i, who, vote, length in VOTES
    ]
    put(tmp_path / "human/side_by_side.jsonl", rows)
    found = human(tmp_path)
    assert [found[name]["mean"] for name in ("win", "tie", "loss")] == [0.4, 0.2, 0.4]
    assert found["win (qa)"] == found["win"]
    assert found["length right"]["mean"] == 0.6
    assert found["win"]["low"] == 0  # both votes on p2 may be all that is drawn
    assert 0.5 < found["agreement_alpha"]["mean"] < 1


def test_kappa_is_cohens_over_pairs_of_votes() -> None:
    assert people._kappa([[1, 1], [0, 0], [-1, -1]]) == pytest.approx(1)
    # six ordered pairs: four agree; each side has 1 three times in six, 0 thrice: (4/6 - 1/2) / 1/2
    assert people._kappa([[1, 1], [0, 0], [1, 0]]) == pytest.approx(1 / 3)
    assert math.isnan(people._kappa([[1, 1], [1, 1]]))


def test_alpha_is_krippendorffs() -> None:
    """The interval-scale example: 4 values 1..3 by hand: D_o = 1 / 3, D_e over all pairs."""
    units = [[1, 1], [2, 3], [3, 3]]
    values = [value for unit in units for value in unit]
    seen = sum((a - b) ** 2 for a, b in units) * 2 / len(values)
    chance = sum((a - b) ** 2 for a in values for b in values) / (len(values) * (len(values) - 1))
    assert people.alpha(units) == pytest.approx(1 - seen / chance)
    assert people.alpha([[1, 1], [0, 0]]) == 1
    assert np.isnan(people.alpha([[1, 1], [1, 1]]))


def test_votes_of_the_annotation_page_are_turned_to_our_model(tmp_path: Path) -> None:
    def pair(name: str, ours_first: bool) -> Comparison:
        models = ("ours", "theirs") if ours_first else ("theirs", "ours")
        lineage = Lineage(source="t", model=models[0])
        talk = Conversation.of(f"q {name}")
        return Comparison(
            id=name,
            conversation=talk,
            chosen="a",
            rejected="b",
            task="qa",
            rejected_model=models[1],
            lineage=lineage,
        )

    write_jsonl(tmp_path / "items.jsonl", [pair("x", True), pair("y", False)])
    database = tmp_path / "human/labels.db"
    database.parent.mkdir()
    import_items(database, tmp_path / "items.jsonl")
    good = View(helpfulness=5, truthfulness=5, length="right")
    bad = View(helpfulness=2, truthfulness=5, length="too long")
    for name, chosen, rejected in (("x", good, bad), ("y", bad, good)):
        add_label(database, name, "ann", PairLabel(chosen=chosen, rejected=rejected))
    found = human(tmp_path)
    assert found["win"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 2}
    assert found["length right"]["mean"] == found["other_length too long"]["mean"] == 1
    assert "agreement_alpha" not in found


def test_bad_votes_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "human/side_by_side.csv"
    path.parent.mkdir()
    path.write_text("id,annotator,preference\na,ann,1\nb,ann,better\n")
    with pytest.raises(UserError, match=r"side_by_side.csv:3: preference 'better' is none of"):
        human(tmp_path)
    path.write_text("id,annotator,preference\na,ann\n")
    with pytest.raises(UserError, match=r"side_by_side.csv:2: not as many fields as the head has"):
        human(tmp_path)


def test_what_does_not_fit_is_counted_and_wrong(tmp_path: Path) -> None:
    def short_sighted(conversation: Conversation) -> dict[str, float]:
        if conversation.last == "long":
            raise TooLong("cannot score 9 tokens: the model reads at most 4")
        return by_length(conversation)

    task = TASKS["rewardbench"]
    prompts, scorer = list(task.load(bench(tmp_path))), ScriptedScorer(short_sighted)
    done = evaluate(None, prompts, out=tmp_path / "out", task=task, scorer=scorer)
    found = asyncio.run(done).metrics
    assert found["too_long"]["mean"] == 0.6
    assert found["pair_accuracy"]["mean"] == 0
    assert found["calibration_error"]["n"] == 2
