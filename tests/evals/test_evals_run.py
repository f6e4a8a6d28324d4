"""An evaluation's promises: right metrics, the same bytes whatever happens, honest comparison."""

import asyncio
import json
from pathlib import Path

import pytest

from flywright.ask import Sampling, Scripted, ScriptedScorer
from flywright.errors import UserError
from flywright.evals.compare import compare
from flywright.evals.run import ITEMS, LEDGER, RESULTS, evaluate
from flywright.records import ATTRIBUTES, Check, Conversation, Lineage, Prompt, weighted_reward
from flywright.sandbox import Sandbox, SandboxSettings

SANDBOX = Sandbox(SandboxSettings(policy="limited-ok"))
SCORER = ScriptedScorer(
    lambda c: {**dict.fromkeys(ATTRIBUTES, 1.0), "helpfulness": float(len(c.last) % 5)}, "r@1"
)


def make(name: str, ask: str, check: Check, split: str = "near") -> Prompt:
    return Prompt(
        id=name,
        conversation=Conversation.of(ask),
        task=name.split("-")[0],
        split=split,
        checks=(check,),
        lineage=Lineage(source="test"),
    )


def sums() -> list[Prompt]:
    rows = [(a, b) for a in range(4) for b in range(5)]
    return [
        make(
            f"sum-{a}-{b}",
            f"{a}+{b}",
            Check(kind="number", args={"answer": a + b}),
            "far" if a == 3 else "near",
        )
        for a, b in rows
    ]


CODE_ARGS = {
    "entry_point": "f",
    "tests": ["assert f(1) == 2"],
    "hidden_tests": ["assert f(2) == 4"],
}
PROMPTS = [
    *sums(),
    make("comma-1", "no comma please", Check(kind="punctuation:no_comma")),
    make("code-1", "double it", Check(kind="code", args=CODE_ARGS)),
]


def answer(prompt: Conversation | str, _sampling: Sampling) -> str:
    """Right for near sums, wrong for odd ones of the far split."""
    assert isinstance(prompt, Conversation)
    if "+" in prompt.last:
        a, b = map(int, prompt.last.split("+"))
        return str(a + b if a < 3 or b % 2 == 0 else 0)
    return "def f(x): return x + 1" if "double" in prompt.last else "yes, sir"


def run(out: Path, completer: Scripted | None = None, prompts: list[Prompt] = PROMPTS):
    return asyncio.run(
        evaluate(
            completer or Scripted(answer, "m@1"),
            prompts,
            out=out,
            scorer=SCORER,
            sandbox=SANDBOX,
            labels={"turn": 1, "stage": "sft"},
        )
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_metrics_follow_the_checks_and_far_stands_apart(tmp_path: Path) -> None:
    results = run(tmp_path)
    means = {name: (round(value["mean"], 6), value["n"]) for name, value in results.metrics.items()}
    assert means["accuracy"] == (1.0, 15)
    assert means["accuracy_far"] == (0.6, 5)
    assert means["instruction_following"] == (0.0, 1)
    assert means["code"] == (0.0, 1), "it fits the shown test only; the hidden one decides"
    near = [p for p in PROMPTS if p.split == "near"]
    rewards = [
        weighted_reward(
            {
                **dict.fromkeys(ATTRIBUTES, 1.0),
                "helpfulness": float(len(answer(p.conversation, Sampling())) % 5),
            }
        )
        for p in near
    ]
    assert means["reward"] == (round(sum(rewards) / len(rewards), 6), len(near))
    assert results.metrics["accuracy_far"]["mean"] == pytest.approx(0.6)
    assert results.by_task["comma"]["instruction_following"]["n"] == 1
    stored = json.loads((tmp_path / RESULTS).read_text())
    assert (stored["turn"], stored["stage"], stored["model"]) == (1, "sft", "m@1")
    assert stored["sandbox"] == SANDBOX.isolation and not (tmp_path / LEDGER).exists()
    rows = [json.loads(line) for line in (tmp_path / ITEMS).read_text().splitlines()]
    assert {"id", "task", "metric", "score", "answer"} <= rows[0].keys()
    assert [r["truth"] for r in rows if r["id"] == "sum-2-3" and r["metric"] == "accuracy"] == ["5"]


class Stumbling(Scripted):
    """Answers in an odd order, and breaks down after a number of answers."""

    def __init__(self, after: int):
        super().__init__(answer, "m@1")
        self.after = after

    async def complete(self, prompt, sampling):  # type: ignore[no-untyped-def]
        for _ in range(len(prompt.last) * 7 % 5):
            await asyncio.sleep(0)
        if self.calls >= self.after:
            raise RuntimeError("killed")
        return await super().complete(prompt, sampling)


def test_an_interrupted_evaluation_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    broken = tmp_path / "broken"
    for after in (5, 6):
        with pytest.raises(RuntimeError):
            run(broken, Stumbling(after))
        assert not (broken / RESULTS).exists()
    with (broken / LEDGER).open("ab") as stream:
        stream.write(b'{"id": "sum-3-4", "items": [{"id"')  # a line cut short
    last = Stumbling(1000)
    run(broken, last)
    assert files(broken) == files(tmp_path / "whole")
    assert 0 < last.calls < len(PROMPTS) - 6, "what was answered is not asked again"


def test_a_finished_evaluation_is_not_asked_again_but_another_one_is(tmp_path: Path) -> None:
    run(tmp_path)
    before = files(tmp_path)
    again = Scripted(answer, "m@1")
    run(tmp_path, again)
    assert again.calls == 0 and files(tmp_path) == before
    other = Scripted(answer, "m@2")
    run(tmp_path, other)
    assert other.calls == len(PROMPTS)
    fewer = Scripted(answer, "m@2")
    run(tmp_path, fewer, PROMPTS[:5])
    assert fewer.calls == 5


def test_a_ledger_of_another_evaluation_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        run(tmp_path, Stumbling(5))
    other = Scripted(answer, "m@2")
    run(tmp_path, other)
    assert other.calls == len(PROMPTS)


def test_each_prompt_has_its_own_seed_that_order_does_not_change(tmp_path: Path) -> None:
    seeds: dict[str, int] = {}

    def reply(prompt: Conversation | str, sampling: Sampling) -> str:
        assert isinstance(prompt, Conversation)
        seeds.setdefault(prompt.last, sampling.seed)
        assert seeds[prompt.last] == sampling.seed
        return "1"

    run(tmp_path / "a", Scripted(reply), PROMPTS[:6])
    run(tmp_path / "b", Scripted(reply), PROMPTS[5::-1])
    assert len(set(seeds.values())) == 6


def test_no_prompts_twin_ids_and_no_checks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no prompts"):
        run(tmp_path, prompts=[])
    with pytest.raises(UserError, match="same id"):
        run(tmp_path, prompts=[PROMPTS[0], PROMPTS[0]])
    with pytest.raises(UserError, match="sum-0-0"):
        run(tmp_path, prompts=[PROMPTS[0].model_copy(update={"checks": ()})])


def test_compare_pairs_the_items_that_both_have(tmp_path: Path) -> None:
    run(tmp_path / "a", Scripted(lambda *_: "0", "bad"), PROMPTS[:15])
    run(tmp_path / "b", None, PROMPTS[1:15])
    found = compare(tmp_path / "a", tmp_path / "b")
    assert found["accuracy"]["mean"] == 1.0 and found["accuracy"]["n"] == 14
    assert found["accuracy"]["unpaired"] == 1
    assert compare(tmp_path / "b", tmp_path / "a")["accuracy"]["mean"] == -1.0
    with pytest.raises(UserError, match=r"items\.jsonl"):
        compare(tmp_path, tmp_path / "nowhere")
