"""The judged benchmarks on a few rows: parse rules, both orders, stored judgments, replay."""

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywright.ask import Ledger, Ledgered, Sampling, Scripted
from flywright.errors import UserError
from flywright.evals import alpaca, arena, judging, mtbench, responses, suite
from flywright.evals.items import Item, Task, Who
from flywright.evals.run import Results, evaluate
from flywright.records import Conversation, Prompt

V01, V2 = arena.ARENA_HARD
QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]},
    {"question_id": 111, "category": "math", "turns": ["1+1?", "And 2+2?"]},
]
REFERENCE = {"question_id": 111, "choices": [{"index": 0, "turns": ["2", "4"]}]}


def put(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def scored(
    task: Task, prompts: Sequence[Prompt], out: Path, answers: Mapping[str, str], judge: Any = None
) -> Results:
    return asyncio.run(evaluate(None, prompts, answers=answers, out=out, task=task, judge=judge))


def text_of(prompt: Conversation | str) -> str:
    return prompt if isinstance(prompt, str) else prompt.last


@pytest.fixture
def mt(tmp_path: Path) -> Path:
    put(tmp_path / "mt_bench/question.jsonl", QUESTIONS)
    put(tmp_path / "mt_bench/reference_answer/gpt-4.jsonl", [REFERENCE])
    return tmp_path


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("Rating: [[7]]", 7),
        ("[[8.5]] or [[9]]", 8.5),
        ("In [3] words. Rating: [[6]]", 6),
        ("Rating: [4]", 4),
        ("Rating: 5", None),
        ("[[five]]", None),
    ],
)
def test_grades_are_read_as_fastchat_reads_them(text: str, grade: float | None) -> None:
    assert mtbench.parse_grade(text) == grade


def test_mt_bench_asks_both_turns_and_judges_them_with_the_reference(mt: Path) -> None:
    prompts = list(mtbench.load(mt))
    model = Scripted(lambda talk, _: f"answer after {text_of(talk)}")
    who = Who(model, sampling=Sampling(max_tokens=9))
    answers = {p.id: asyncio.run(mtbench.ask(p, who)) for p in prompts}
    assert json.loads(answers["mt_bench/81"]) == ["answer after Write.", "answer after Again."]
    asked: list[str] = []

    def reply(prompt: Conversation | str, _: Sampling) -> str:
        asked.append(text_of(prompt))
        return "[[10]]" if "Again." in asked[-1] else "[[4]]" if "1+1" in asked[-1] else "hm"

    found = scored(mtbench.MT_BENCH, prompts, mt / "out", answers, Scripted(reply)).metrics
    assert found["turn_1"] == {"mean": 4.0, "low": 4.0, "high": 4.0, "n": 1}
    assert found["score"]["mean"] == pytest.approx((10 + 4 + 4) / 3)
    assert found["score (math)"]["mean"] == 4
    assert found["unreadable"]["mean"] == 0.25
    assert sum("<reference>" in text for text in asked) == 2
    assert all("{" not in text for text in asked)


def test_mt_bench_stored_judgments_pool_all_turns(mt: Path) -> None:
    rows = [
        {"question_id": 81, "model": "a", "judgment": "[[9]]", "score": 9, "turn": 1},
        {"question_id": 81, "model": "a", "judgment": "[[7]]", "score": 7, "turn": 1},
        {"question_id": 81, "model": "a", "judgment": "$ERROR$", "score": -1, "turn": 2},
        {"question_id": 111, "model": "a", "score": 2, "turn": 1},
        {"question_id": 111, "model": "b", "score": 1, "turn": 1},
    ]
    path, prompts = put(mt / "judgments.jsonl", rows), list(mtbench.load(mt))
    with pytest.raises(UserError, match="judges several models; add #MODEL, one of a, b"):
        responses.judged(path, prompts)
    judged = responses.judged(Path(f"{path}#a"), prompts)
    found = scored(mtbench.MT_BENCH, judged, mt / "out", dict.fromkeys([p.id for p in judged], ""))
    assert found.metrics["score"]["mean"] == (8 + 2) / 2
    assert found.metrics["judge_spread"]["mean"] == 2
    assert found.metrics["unreadable"]["mean"] == 0.5  # one error, one that is not there


def test_a_reference_that_is_missing_is_refused(mt: Path) -> None:
    (mt / "mt_bench/reference_answer/gpt-4.jsonl").unlink()
    with pytest.raises(
        UserError, match=r"question.jsonl:2: question 111 is of math, and has no ref"
    ):
        list(mtbench.load(mt))


@pytest.mark.parametrize(
    ("text", "v01", "v2"),
    [
        ("My verdict is [[A>>B]].", "A>>B", "A>>B"),
        ("[[A>B]] ... no: [[B>A]]", None, "B>A"),
        ("[[A=B]] [[A=B]]", "A=B", "A=B"),
        ("[A>B]", None, "A>B"),
        ("[[a>b]]", None, "A>B"),
        ("A>B", None, None),
    ],
)
def test_arena_labels(text: str, v01: str | None, v2: str | None) -> None:
    assert arena.parse_label(text, last=False) == v01
    assert arena.parse_label(text, last=True) == v2


def arena_data(folder: Path, questions: int, version: str = "v0.1") -> list[Prompt]:
    rows = [
        {"uid": f"q{n}", "category": "arena-hard-v0.1", "prompt": f"P{n}"} for n in range(questions)
    ]
    base = [
        {"uid": f"q{n}", "messages": [{"content": {"answer": f"base {n}"}}]}
        for n in range(questions)
    ]
    put(folder / f"arena_hard/{version}/question.jsonl", rows)
    put(folder / f"arena_hard/{version}/model_answer/gpt-4-0314.jsonl", base)
    return list((V01 if version == "v0.1" else V2).load(folder))


def test_arena_stored_judgments_are_bradley_terry(tmp_path: Path) -> None:
    """The weighted share is what a logistic regression of the duplicated battles gives."""
    random, labels = np.random.default_rng(3), ["A>>B", "A>B", "A=B", "B>A", "B>>A", None]
    rows = [
        {
            "question_id": f"q{n}",
            "model": "m",
            "games": [{"score": labels[a]}, {"score": labels[b]}],
        }
        for n, (a, b) in enumerate(random.integers(0, 6, (40, 2)))
    ]
    prompts = responses.judged(put(tmp_path / "judged.jsonl", rows), arena_data(tmp_path, 40))
    found = scored(V01, prompts, tmp_path / "out", {p.id: "" for p in prompts}).metrics
    battles: list[float] = []  # of the model: won or not, each battle twice, a tie as one of each
    for row in rows:
        for game, sign in zip(row["games"], (-1, 1), strict=True):
            if game["score"]:
                view = sign * {"A": 1, "B": -1, "=": 0}[game["score"].replace("A=B", "=")[0]]
                many = 3 if ">>" in game["score"] else 1
                battles += [0.0, 1.0] if view == 0 else [float(view > 0)] * 2 * many
    strength = 0.0
    for _ in range(50):
        expected = 1 / (1 + math.exp(-strength))
        strength += (np.mean(battles) - expected) / (expected * (1 - expected))
    assert found["win_rate"]["mean"] == pytest.approx(100 / (1 + math.exp(-strength)), abs=1e-9)
    assert found["win_rate"]["low"] < found["win_rate"]["mean"] < found["win_rate"]["high"]
    assert found["unreadable"]["mean"] > 0


def test_arena_asks_in_both_orders(tmp_path: Path) -> None:
    prompts = arena_data(tmp_path, 2)

    def prefers_ours(prompt: Conversation | str, _: Sampling) -> str:
        text = text_of(prompt)
        return "[[A>>B]]" if text.index("ours") < text.index("base") else "[[B>A]]"

    answers = {prompt.id: "ours" for prompt in prompts}
    found = scored(V01, prompts, tmp_path / "o", answers, Scripted(prefers_ours)).metrics
    assert (found["win_rate"]["mean"], found["order_decides"]["mean"]) == (100, 0)
    scores = sorted(
        json.loads(line)["score"]
        for line in (tmp_path / "o/items.jsonl").read_text().splitlines()
        if '"battle"' in line
    )
    assert scores == [1, 1, 3, 3]


def alpaca_data(folder: Path, rows: int) -> list[Prompt]:
    base = [{"instruction": f"I{n}", "output": "base", "dataset": "d"} for n in range(rows)]
    put(folder / "alpaca_eval/alpaca_eval_gpt4_baseline.json", base)
    return list(alpaca.load(folder))


def test_alpaca_judge_in_both_orders_and_failures(tmp_path: Path) -> None:
    prompts = alpaca_data(tmp_path, 4)
    say: dict[str, Callable[[str], str]] = {
        "I0": lambda text: "M" if text.index("ours") > text.index("base") else "m",  # ours
        "I1": lambda _text: "m",  # whatever stands first: a tie
        "I2": lambda _text: "neither",
        "I3": lambda text: "m" if text.index("ours") > text.index("base") else "M",  # theirs
    }

    def reply(prompt: Conversation | str, _: Sampling) -> str:
        text = text_of(prompt)
        return say[next(name for name in say if f"\n{name}\n" in text)](text)

    answers = {prompt.id: "ours" for prompt in prompts}
    found = scored(alpaca.ALPACA_EVAL, prompts, tmp_path / "o", answers, Scripted(reply)).metrics
    assert found["win_rate"]["mean"] == pytest.approx(50)
    assert (found["win_rate"]["n"], found["unreadable"]["mean"]) == (3, 0.25)
    assert found["order_decides"]["mean"] == 0.25
    assert "length_controlled" not in found
    lines = map(json.loads, (tmp_path / "o/items.jsonl").read_text().splitlines())
    wins = {one["id"]: one["score"] for one in lines if one["metric"] == "win"}
    assert wins == {"alpaca_eval/0": 1, "alpaca_eval/1": 0.5, "alpaca_eval/3": 0}


def test_alpaca_preferences_out_of_range_are_refused(tmp_path: Path) -> None:
    prompts = alpaca_data(tmp_path, 1)
    rows = [{"instruction": "I0", "preference": 3.0, "generator_2": "m"}]
    judged = responses.judged(put(tmp_path / "annotations.json", rows), prompts)
    with pytest.raises(UserError, match=r"alpaca_eval/0: preferences are from 1 to 2"):
        scored(alpaca.ALPACA_EVAL, judged, tmp_path / "o", {judged[0].id: ""})


def test_length_model_is_fitted_where_it_is_not_stored() -> None:
    """With many rows the pull fades, and what made the preferences is found again."""
    random = np.random.default_rng(0)
    table = np.stack([random.uniform(-1, 1, 60_000), random.normal(0, 1.5, 60_000)], axis=1)
    table = np.hstack([table, np.ones((60_000, 1))])
    true = np.array([-2.0, 1.0, -0.5])
    found = alpaca.logistic(table, 1 / (1 + np.exp(-table @ true)))
    assert found == pytest.approx(true, abs=0.01)


def test_a_judges_ledger_replays_and_refuses_what_was_not_asked(tmp_path: Path) -> None:
    asking, path = {"system": "s", "template": "{question} {unknown}"}, tmp_path / "judge.jsonl"

    async def record() -> str:
        with Ledger(path) as ledger:
            who = Who(judge=Ledgered(Scripted(lambda *_: "fine", "j@1"), ledger))
            return await judging.judged(who, asking, question="q")

    assert asyncio.run(record()) == "fine"
    replay = judging.Replay(path)
    assert replay.model == "j@1"
    assert asyncio.run(judging.judged(Who(judge=replay), asking, question="q")) == "fine"
    with pytest.raises(UserError, match="the judge was never asked this"):
        asyncio.run(judging.judged(Who(judge=replay), asking, question="other"))
    with pytest.raises(UserError, match="not the ledger of a judge"):
        judging.Replay(put(tmp_path / "no.jsonl", [{"a": 1}]))


def test_rates_are_wilsons() -> None:
    assert judging.rate(0, 10)["high"] == pytest.approx(0.2775, abs=1e-4)
    assert judging.rate(5, 10)["low"] == pytest.approx(0.2366, abs=1e-4)
    item = Item(id="a", task="t", split="x", metric="m", score=1.0, answer="")
    assert judging.shares(("m",), [item]).keys() == {"m", "m (x)"}


def test_a_judges_words_are_kept_and_replayed_to_the_same_bytes(tmp_path: Path) -> None:
    """`--judge` leaves judgments.jsonl; `--judgments` of it asks nobody and gives the same."""
    arena_data(tmp_path, 3)
    model = Scripted(lambda *_: "ours", "m@1")
    judge = Scripted(lambda *_: "[[A>B]]", "j@1")
    first, again = tmp_path / "first", tmp_path / "again"
    asyncio.run(suite.run_tasks(model, ["arena_hard"], tmp_path, first, judge=judge))
    assert judge.calls == 6
    words = first / "arena_hard/judgments.jsonl"
    asyncio.run(suite.run_tasks(model, ["arena_hard"], tmp_path, again, judgments=words))
    assert judge.calls == 6
    for name in ("items.jsonl", "results.json"):
        assert (first / "arena_hard" / name).read_bytes() == (
            again / "arena_hard" / name
        ).read_bytes()


def test_a_missing_judge_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    arena_data(tmp_path, 1)
    model = Scripted(lambda *_: "ours")
    with pytest.raises(UserError, match="arena_hard: name who judges with --judge"):
        asyncio.run(suite.run_tasks(model, ["arena_hard"], tmp_path, tmp_path / "out"))
    assert model.calls == 0
