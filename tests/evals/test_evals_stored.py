"""Scores of others' outputs and judgments: equal to those that they published."""

import asyncio
import csv
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywright.ask import Scripted
from flywright.evals import alpaca, arena, calls, mtbench, responses, rewards, safety, topics
from flywright.evals.items import Item, Who
from flywright.evals.run import Results, evaluate
from flywright.evals.tables import placed
from flywright.records import Prompt

DATA = Path(os.environ.get("FLYWRIGHT_DATA", Path(__file__).parents[2] / "../shared/data"))
STORED = DATA / "alpaca_eval"

pytestmark = pytest.mark.skipif(
    not STORED.is_dir(), reason=f"no benchmark files in {DATA} (FLYWRIGHT_DATA)"
)


def alpaca_results(model: str, out: Path) -> Results:
    path = STORED / f"results/{model}/weighted_alpaca_eval_gpt4_turbo/annotations.json.gz"
    prompts = responses.judged(path, list(alpaca.load(DATA)))
    answers = {prompt.id: "" for prompt in prompts}
    return asyncio.run(evaluate(None, prompts, answers=answers, out=out, task=alpaca.ALPACA_EVAL))


@pytest.mark.parametrize("model", ["alpaca-7b", "vicuna-7b"])
def test_alpaca_eval_is_the_leaderboards(model: str, tmp_path: Path) -> None:
    with (STORED / alpaca.LEADERBOARD).open(newline="") as stream:
        published = next(row for row in csv.DictReader(stream) if row[""] == model)
    found = alpaca_results(model, tmp_path).metrics
    assert found["win_rate"]["mean"] == pytest.approx(float(published["win_rate"]), abs=1e-9)
    error = float(published["standard_error"])
    assert found["win_rate"]["stderr"] == pytest.approx(error, abs=1e-9)
    discrete = float(published["discrete_win_rate"])
    assert found["discrete_win_rate"]["mean"] == pytest.approx(discrete, abs=1e-9)
    controlled = float(published["length_controlled_winrate"])
    assert found["length_controlled"]["mean"] == pytest.approx(controlled, abs=1e-8)


def test_length_controlled_rates_follow_from_the_other_models() -> None:
    """Every seventh model is left out of what the difficulties are found by; then it is told."""
    with (STORED / alpaca.LEADERBOARD).open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["n_total"] == "805"]
    stored = alpaca.length_model(DATA)["coefficients"]
    rates = {
        row[""]: float(row["length_controlled_winrate"]) / 100
        for row in rows
        if row["length_controlled_winrate"] and row[""] in stored
    }
    wrong = {"NullModel", "dbrx-instruct"}  # their published rates are of other coefficients
    held = [name for number, name in enumerate(rates) if number % 7 == 0 and name not in wrong]
    model = alpaca.difficulty_levels(
        stored, {name: rates[name] for name in rates if name not in held}
    )
    levels, weights = np.array(model["levels"]), np.array(model["weights"])
    for name in held:
        _, slope, constant = stored[name]
        told = weights @ (1 / (1 + np.exp(-(slope * levels + constant))))
        assert told == pytest.approx(rates[name], abs=1e-7), name
    assert len(held) > 20


def canonical(truth: Sequence[Mapping[str, Any]]) -> str:
    """The calls that the possible answers begin with."""

    def first(options: Any) -> Any:
        listed = options if isinstance(options, list) else [options]
        return plain(next((one for one in listed if one != ""), ""))

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if not (isinstance(v, list) and "" in v)}
            return {key: first(options) for key, options in kept.items()}
        return [plain(one) for one in value] if isinstance(value, list) else value

    said = []
    for ((name, given),) in (call.items() for call in truth):
        needed = {k: v for k, v in given.items() if any(one != "" for one in v)}
        said.append(f"{name}({', '.join(f'{k}={first(v)!r}' for k, v in needed.items())})")
    return f"[{', '.join(said)}]"


def test_bfcl_canonical_answers_are_right_and_broken_ones_are_not() -> None:
    right, wrong, total = Counter[str](), Counter[str](), Counter[str]()
    for prompt in calls.load(DATA):
        args = prompt.checks[0].args
        total[prompt.split] += 1
        if args["truth"] is None:
            irrelevant = "irrelevance" in prompt.split
            good, bad = ("No function fits.", "[f(a=1)]")[:: 1 if irrelevant else -1]
        else:
            good = canonical(args["truth"])
            bad = good.replace("(", "_(", 1)
        right[prompt.split] += calls.is_right(calls.parse_calls(good), args)
        wrong[prompt.split] += calls.is_right(calls.parse_calls(bad), args)
    # two rows each whose file lists no possible value at all for an argument that it lists
    assert {name: total[name] - right[name] for name in total if total[name] > right[name]} == {
        "live_multiple": 2,
        "live_simple": 2,
    }
    assert sum(total.values()) == 3641
    assert not wrong.total()


def test_topic_following_perfect_answers_score_one() -> None:
    def metrics(say: Mapping[str, str]) -> dict[str, float]:
        items: list[Item] = []
        for prompt in topics.load(DATA):
            items += asyncio.run(topics.score(prompt, say[prompt.checks[0].args["class"]]))
        return {name: value["mean"] for name, value in topics.summary(items).items()}

    stray = "That is not relevant to the scenario."
    perfect = metrics({"distractor": stray, "on_topic": "Gladly."})
    assert set(perfect.values()) == {1.0}
    never = metrics({"distractor": "Gladly.", "on_topic": "Gladly."})
    assert never["distractor_f1"] == 0
    assert never["on_topic_f1"] == pytest.approx(2 * 767 / (767 + 1073))


@pytest.mark.parametrize(("model", "least"), [("gpt4", 0.95), ("llama2new", 0.90)])
def test_refusals_agree_with_people(model: str, least: float) -> None:
    rows = [row for _, row in placed(DATA / f"safety/xstest/xstest_v2_completions_{model}.csv.gz")]
    same = [safety.refuses(row["completion"]) != row["final_label"].startswith("1") for row in rows]
    assert len(same) == 450
    assert sum(same) / len(same) >= least


def test_xstest_completions_are_answers(tmp_path: Path) -> None:
    path = DATA / "safety/xstest/xstest_v2_completions_gpt4.csv.gz"
    prompts, answers = responses.match(path, list(safety.load_xstest(DATA)))
    (task,) = (task for task in safety.SAFETY if task.name == "xstest")
    found = asyncio.run(evaluate(None, prompts, answers=answers, out=tmp_path, task=task)).metrics
    assert (found["over_refusal"]["n"], found["refusal"]["n"]) == (250, 200)
    assert found["over_refusal"]["mean"] < 0.15 < 0.9 < found["refusal"]["mean"]


def test_mt_bench_takes_the_corrected_references() -> None:
    prompts = {prompt.id: prompt for prompt in mtbench.load(DATA)}
    assert Counter(prompt.split for prompt in prompts.values()).most_common()[-1][1] == 10
    args = prompts["mt_bench/101"].checks[0].args
    assert args["references"][0].startswith("If you've just overtaken the second person")
    assert "{ref_answer_2}" in args["asking"][1]["template"]
    assert "references" in args and not prompts["mt_bench/81"].checks[0].args["references"]


def test_arena_baseline_against_itself_is_half(tmp_path: Path) -> None:
    path = DATA / "arena_hard/v0.1/model_answer/gpt-4-0314.jsonl.gz"
    task = arena.ARENA_HARD[0]
    prompts, answers = responses.match(path, list(task.load(DATA)))
    assert all(answers[prompt.id] == prompt.checks[0].args["answer"] for prompt in prompts)
    judge = Scripted(lambda *_: "They are the same: [[A>B]]")  # whatever stands first
    done = evaluate(None, prompts, answers=answers, out=tmp_path, task=task, judge=judge)
    found = asyncio.run(done).metrics
    assert found["win_rate"]["mean"] == 50
    assert found["order_decides"]["mean"] == 1
    assert judge.calls == 500  # both orders ask the same here, and what was asked is remembered


def test_llmbar_is_complete_and_counts_as_rewardbench_does() -> None:
    prompts = list(rewards.load_llmbar(DATA))
    counts = Counter(prompt.split for prompt in prompts)
    assert counts == {n: c for n, c in rewards.sections()["chat_hard"].items() if "llmbar" in n}

    async def items(prompt: Prompt) -> list[Item]:
        return await rewards.grade(prompt, json.dumps({"chosen": 1, "rejected": 0}), Who())

    scored = [item for prompt in prompts for item in asyncio.run(items(prompt))]
    assert {i.score for i in scored if i.metric == "pair_accuracy"} == {1.0}
