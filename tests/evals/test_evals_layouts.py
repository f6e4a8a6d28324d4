"""Answers and verdicts in the layouts that others write: all open, each row is matched."""

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from flywright.errors import UserError
from flywright.evals import alpaca, arena, mtbench, responses, suite, tasks
from flywright.evals.datafiles import problem
from flywright.evals.items import Who
from flywright.records import Check, Prompt

SUMS = [{"question": f"{n} + 1?", "answer": f"#### {n + 1}"} for n in range(3)]
HEADS = [{"task_id": f"HumanEval/{n}", "prompt": f"def f{n}():\n"} for n in range(3)]
HEADS = [{**row, "entry_point": f"f{n}", "test": ""} for n, row in enumerate(HEADS)]


def put(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = value if path.name.endswith("l") and isinstance(value, list) else [value]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    put(tmp_path / "data/gsm8k/test.jsonl", SUMS)
    put(tmp_path / "data/humaneval/HumanEval.jsonl", HEADS)
    return tmp_path / "data"


def chat(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


SAID = ["one", "two", "three"]
LAYOUTS = {  # task, file: what it holds
    ("humaneval", "samples.jsonl"): [
        {"task_id": f"HumanEval/{n}", "completion": text} for n, text in enumerate(SAID)
    ],
    ("humaneval", "evalplus.jsonl"): [
        {"task_id": f"HumanEval/{n}", "solution": text} for n, text in enumerate(SAID)
    ],
    ("humaneval", "eval_results.json"): {
        "date": "2024",
        "eval": {
            f"HumanEval/{n}": [{"task_id": f"HumanEval/{n}", "solution": t, "base_status": "pass"}]
            for n, t in enumerate(SAID)
        },
    },
    ("humaneval", "generations.json"): [[text] for text in SAID],
    ("humaneval", "by_id.json"): {f"HumanEval/{n}": text for n, text in enumerate(SAID)},
    ("humaneval", "samples_humaneval_2024.jsonl"): [
        {"doc_id": n, "doc": HEADS[n], "resps": [[text]], "filter": "create_test"}
        for n, text in enumerate(SAID)
    ],
    ("gsm8k", "samples_gsm8k.jsonl"): [
        {"doc_id": n, "doc": SUMS[n], "resps": [[SAID[n]]], "filter": name}
        for name in ("strict-match", "flexible-extract")
        for n in range(3)
    ],
    ("gsm8k_base@0", "samples_gsm8k_base.jsonl"): [
        {
            "doc_id": n,
            "doc": {},
            "arguments": {"gen_args_0": {"arg_0": f"Question: {n} + 1?\nAnswer:", "arg_1": {}}},
            "resps": [[SAID[n]]],
        }
        for n in range(3)
    ],
    ("gsm8k", "skills.jsonl"): [
        {"question": SUMS[n]["question"], "generation": SAID[n], "expected_answer": "7"}
        for n in (2, 0, 1)
    ],
    ("gsm8k", "batch.jsonl"): [
        {"custom_id": f"gsm8k/{n}", "response": {"status_code": 200, "body": chat(SAID[n])}}
        for n in range(3)
    ],
    ("gsm8k", "replies.jsonl"): [{"id": n, **chat(SAID[n])} for n in range(3)],
    ("gsm8k", "foreign_ids.jsonl"): [
        {"id": 2 - n, "prompt": SUMS[n]["question"], "output": SAID[n]} for n in range(3)
    ],
}


@pytest.mark.parametrize(("name", "file"), LAYOUTS)
def test_answers_of_any_layout_go_to_their_prompts(name: str, file: str, data: Path) -> None:
    path = put(data.parent / file, LAYOUTS[name, file])
    task = tasks.task_named(name)
    for given in (path, path.parent / "folder"):
        put(path.parent / "folder" / file, LAYOUTS[name, file])
        prompts, answers = responses.match(given, list(task.load(data)), task.request)
        assert list(answers.values()) == SAID and len(prompts) == 3


def test_several_samples_of_a_prompt_are_kept_apart(data: Path) -> None:
    path = put(data.parent / "generations.json", [["a", "b"], ["c"]])
    prompts = list(tasks.task_named("humaneval").load(data))
    _, answers = responses.match(path, prompts)
    first = prompts[0].id
    assert answers == {first: "a", f"{first}~1": "b", prompts[1].id: "c"}


def test_logged_likelihoods_are_read_and_words_refused(tmp_path: Path) -> None:
    row = {"id": "e1", "question": "Why?", "choices": ["so", "no"], "gold": 1}
    put(tmp_path / "arc/ARC-Easy_test.jsonl", [row])
    logged = {"doc_id": 0, "doc": {"question": "Why?"}}
    logged["resps"] = [[["-3.5", "False"]], [["-1.25", "True"]]]

    def score(value: Any) -> Any:
        path = put(tmp_path / "samples_arc_easy.jsonl", [value])
        return asyncio.run(
            suite.run_tasks(None, ["arc_easy"], tmp_path, tmp_path / "out", answers=path)
        )

    assert score(logged)["arc_easy"].metrics["acc"]["mean"] == 1.0
    for wrong in ([["no"]], [[["-1", "True"]]]):
        with pytest.raises(UserError, match="arc_easy/e1: 2 log-likelihoods are wanted"):
            score({**logged, "resps": wrong})


def test_what_is_not_answered_is_told_and_a_limit_takes_its_part(data: Path) -> None:
    rows = [{"id": f"gsm8k/{n}", "response": str(n + 1)} for n in (1, 2)]
    path, out = put(data.parent / "some.jsonl", rows), data.parent / "out"

    def entry(limit: int) -> dict[str, Any]:
        run = suite.run_tasks(None, ["gsm8k"], data, out, answers=path, limit=limit)
        asyncio.run(run)
        return json.loads((out / "results.json").read_text())["gsm8k"]

    assert entry(0)["n"] == 2 and entry(0)["protocol"].endswith("; only 2 of 3 answered")
    assert entry(2)["n"] == 1 and entry(2)["protocol"].endswith("; only 1 of 2 answered")


def test_a_bare_number_that_several_subjects_have_names_none(tmp_path: Path) -> None:
    prompts = [problem("mmlu", f"mmlu/{split}/0", f"{split}?", Check(kind="x")) for split in "ab"]
    path = put(tmp_path / "answers.jsonl", [{"id": 0, "response": "x"}])
    with pytest.raises(UserError, match="answers no prompt"):
        responses.match(path, prompts)


def test_texts_that_stand_there_twice_are_answered_in_turn(tmp_path: Path) -> None:
    prompts = [problem("t", f"t/{n}", "Same?", Check(kind="x")) for n in range(2)]
    rows = [{"prompt": "Same? ", "response": text} for text in ("x", "y")]
    _, answers = responses.match(put(tmp_path / "a.jsonl", rows), prompts)
    assert list(answers.values()) == ["x", "y"]
    rows = [{"prompt": "Same?", "key": 1 - n, "response": text} for n, text in enumerate("xy")]
    _, answers = responses.match(put(tmp_path / "a.jsonl", rows), prompts)
    assert list(answers.values()) == ["y", "x"]


def test_stored_scores_of_pairs_as_columns(tmp_path: Path) -> None:
    prompts = [problem("rewardbench", f"rewardbench/{n}", "Q?", Check(kind="x")) for n in (30, 31)]
    columns = {"model": "m", "id": [31, 30], "scores_chosen": [[1.5], [2]]}
    columns |= {"scores_rejected": [[1], 3], "subset": ["donotanswer", "hep-go"]}
    _, answers = responses.match(put(tmp_path / "m.json", columns), prompts)
    assert [json.loads(one) for one in answers.values()] == [
        {"chosen": 2, "rejected": 3},
        {"chosen": 1.5, "rejected": 1},
    ]


# --- verdicts


def items_of(grade: Any, prompt: Prompt) -> dict[str, float]:
    return {one.metric: one.score for one in asyncio.run(grade(prompt, "", Who()))}


def test_alpaca_annotations_against_another_baseline_get_no_length_control(tmp_path: Path) -> None:
    row = {"instruction": "Do it.", "output_1": "a", "output_2": "bb", "generator_2": "m"}
    rows = [{**row, "preference": float("nan")}, {**row, "generator_1": "text_davinci_003"}]
    check = Check(kind="alpaca_eval", args={"baseline": "a", "length_model": {"coefficients": {}}})
    prompt = problem("alpaca_eval", "alpaca_eval/0", "Do it.", check)
    path = tmp_path / "annotations.json.gz"
    path.write_bytes(gzip.compress(json.dumps(rows[:1]).encode()))
    (judged,) = responses.judged(path, [prompt])
    assert items_of(alpaca.grade, judged) == {"unreadable": 1.0}, "NaN is no verdict"
    path = put(path.with_suffix(""), [{**rows[1], "preference": 2}])
    (judged,) = responses.judged(path, [prompt])
    (win, *_) = asyncio.run(alpaca.grade(judged, "", Who()))
    assert (win.metric, win.score) == ("win", 1.0) and "stored" not in json.loads(win.detail)
    assert "length_controlled" not in alpaca.summary([win])


def test_arena_verdicts_of_both_orders_in_a_row(tmp_path: Path) -> None:
    prompt = problem("arena_hard", "arena_hard/q1", "Why?", Check(kind="arena_hard", args={}))
    row = {"question_id": "Q1", "judgement-base-gen": "[[B>A]]", "judgement-gen-base": "[[A>>B]]"}
    (judged,) = responses.judged(put(tmp_path / "output.jsonl", [row]), [prompt])
    battles = [i.score for i in asyncio.run(arena.grade(judged, "", Who())) if i.metric == "battle"]
    assert battles == [1.0, 3.0]


def test_pairwise_mt_bench_judgments_are_refused_by_name(tmp_path: Path) -> None:
    args = {"turns": ["Why?"], "references": []}
    prompt = problem("mt_bench", "mt_bench/81", "Why?", Check(kind="mt_bench", args=args))
    row = {"question_id": 81, "model_1": "a", "model_2": "b", "g1_winner": "model_1"}
    (judged,) = responses.judged(put(tmp_path / "gpt-4_pair.jsonl", [row]), [prompt])
    with pytest.raises(UserError, match="a judgment of a pair"):
        asyncio.run(mtbench.grade(judged, "", Who()))
