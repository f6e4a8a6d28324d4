"""The benchmarks on their own data (where it is) and on a few rows of the same shape."""

import asyncio
import gzip
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flywright.ask import Scripted
from flywright.errors import UserError
from flywright.evals import gsm8k, humaneval, ifeval, responses, suite, tasks
from flywright.records import Prompt
from flywright.sandbox import Outcome, Sandbox, SandboxSettings

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("FLYWRIGHT_DATA", ROOT / "../shared/data"))
SANDBOX = Sandbox(SandboxSettings(policy="limited-ok", seconds=5))

needs_data = pytest.mark.skipif(
    not (DATA / "humaneval").is_dir(), reason=f"no benchmark files in {DATA} (FLYWRIGHT_DATA)"
)

PROBLEM = {
    "task_id": "Tiny/0",
    "prompt": 'import math\n\ndef half(x):\n    return x / 2\n\ndef quarter(x):\n    """x / 4"""\n',
    "entry_point": "quarter",
    "canonical_solution": "    return half(half(x))\n",
    "test": "def check(candidate):\n    assert candidate(8) == half(4) == 2\n",
}
SUM = {"question": "2 apples and 1,000 more?", "answer": "2+1000\n#### 1,002"}
INSTRUCTION = {
    "key": 7,
    "prompt": "Be quiet.",
    "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
    "kwargs": [{"num_words": None}, {}],
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with one row of each benchmark."""
    rows = {
        "humaneval/HumanEval.jsonl.gz": PROBLEM,
        "gsm8k/test.jsonl": SUM,
        "ifeval/input_data.jsonl": INSTRUCTION,
    }
    for name, row in rows.items():
        path = tmp_path / name
        path.parent.mkdir()
        opener = gzip.open if name.endswith(".gz") else open
        with opener(path, "wt") as stream:
            stream.write(json.dumps(row) + "\n")
    return tmp_path


def run(
    data: Path, out: Path, names: list[str], sandbox: Sandbox = SANDBOX, **more: Any
) -> Mapping[str, Any]:
    completer = None if "answers" in more else Scripted(lambda *_: '"1002"', "m@1")
    return asyncio.run(suite.run_tasks(completer, names, data, out, sandbox=sandbox, **more))


def solved(prompt: Prompt, answer: str) -> bool:
    (item,) = asyncio.run(humaneval.score(prompt, answer, SANDBOX))
    return item.score == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "    return half(half(x))",
        "    return x / 4\n",
        "```python\ndef quarter(x):\n    return x / math.sqrt(16)\n```",
        "Here:\n```python\ndef quarter(x):\n    return half(half(x))\n```\nDone.",
    ],
)
def test_humaneval_takes_a_completion_or_a_whole_function(data: Path, answer: str) -> None:
    (prompt,) = humaneval.load(data)
    assert solved(prompt, answer)


FORGERIES = {
    "equal to everything": """
class Yes:
    def __eq__(self, other): return True
def NAME(*args, **kwargs): return Yes()
""",
    "walks the frames": """
import sys
def NAME(*args, **kwargs):
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()):
            if isinstance(value, list): value.append("passed")
            if isinstance(value, dict): value["passed"] = True
        frame = frame.f_back
""",
    "sys.exit": "import sys\ndef NAME(*args, **kwargs): sys.exit(0)\n",
    "os._exit": "import os\ndef NAME(*args, **kwargs): os._exit(0)\n",
    "writes to leaked descriptors": """
import os
def NAME(*args, **kwargs):
    for handle in range(64):
        try: os.write(handle, b'{"nonce": "", "passed": true, "error": ""}\\n')
        except OSError: pass
""",
    "replaces check and a helper": """
def half(x): return 2
def check(candidate): pass
def NAME(*args, **kwargs): return 2.0 if args != (8,) else 3.0
""",
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_pass_scores_nothing(data: Path, forgery: str) -> None:
    (prompt,) = humaneval.load(data)
    assert not solved(prompt, forgery.replace("NAME", "quarter"))


def test_gsm8k_takes_the_last_number(data: Path) -> None:
    (prompt,) = gsm8k.load(data)
    assert prompt.checks[0].args == {"answer": "1002"} and "apples" in prompt.conversation.last
    (data / "gsm8k/test.jsonl").write_text('{"question": "?", "answer": "12"}\n')
    with pytest.raises(UserError, match="####"):
        list(gsm8k.load(data))


def test_ifeval_counts_prompts_and_instructions_apart(data: Path) -> None:
    (prompt,) = ifeval.load(data)
    items = asyncio.run(ifeval.score(prompt, "Sure\n*No quotes here*"))
    scores = {(item.metric, item.id): item.score for item in items}
    assert scores == {
        ("prompt_strict", "ifeval/7"): 0.0,
        ("prompt_loose", "ifeval/7"): 0.0,
        ("instruction_strict", "ifeval/7#0"): 1.0,
        ("instruction_strict", "ifeval/7#1"): 0.0,
        ("instruction_loose", "ifeval/7#0"): 1.0,
        ("instruction_loose", "ifeval/7#1"): 0.0,
    }
    loose = asyncio.run(ifeval.score(prompt, 'Sure:\n"Fine"'))
    assert [i.score for i in loose if i.metric.startswith("prompt")] == [0.0, 1.0]


def test_the_suite_writes_a_folder_a_task_and_one_summary(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    results = run(data, out, ["gsm8k", "ifeval"])
    assert results["gsm8k"].metrics["accuracy"]["mean"] == 1.0
    assert results["ifeval"].metrics["prompt_strict"]["mean"] == 1.0
    summary = json.loads((out / "results.json").read_text())
    assert list(summary) == ["gsm8k", "ifeval"]
    assert {"metrics", "stderr", "n", "hashes"} <= summary["gsm8k"].keys()
    assert (out / "gsm8k/items.jsonl").exists()
    with pytest.raises(UserError, match="did you mean 'gsm8k'"):
        run(data, out, ["gsm8"])
    with pytest.raises(UserError, match=r"HumanEval\.jsonl"):
        run(tmp_path / "empty", out, ["humaneval"])


def test_responses_match_by_id_key_or_prompt_and_may_be_several(data: Path) -> None:
    (prompt,) = ifeval.load(data)
    path = data / "answers.jsonl"

    def matched(*rows: dict[str, Any]) -> tuple[list[str], list[str]]:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        prompts, answers = responses.match(path, [prompt])
        return [p.id for p in prompts], list(answers.values())

    for who in ({"key": 7}, {"id": "ifeval/7"}, {"prompt": "Be quiet."}):
        assert matched({**who, "response": "a"}) == (["ifeval/7"], ["a"])
    both = matched({"key": 7, "response": "a"}, {"key": 7, "completion": "b"})
    assert both == (["ifeval/7", "ifeval/7~1"], ["a", "b"])
    with pytest.raises(UserError, match=r"answers\.jsonl:1"):
        matched({"key": 8, "response": "a"})
    with pytest.raises(UserError, match=r"answers\.jsonl:2"):
        matched({"key": 7, "response": "a"}, {"key": 7})


def test_decontamination_sees_every_benchmark_that_is_there(data: Path) -> None:
    texts = dict(tasks.benchmark_texts(data))
    assert texts.keys() == {"ifeval", "gsm8k", "humaneval"}
    assert "def quarter" in texts["humaneval"] and humaneval.REQUEST not in texts["humaneval"]
    assert texts["ifeval"] == "Be quiet." and texts["gsm8k"] == SUM["question"]
    (data / "gsm8k/test.jsonl").unlink()
    assert "gsm8k" not in dict(tasks.benchmark_texts(data))
    (data / "ifeval/input_data.jsonl").write_text("{\n")
    with pytest.raises(UserError, match=r"input_data\.jsonl:1"):
        list(tasks.benchmark_texts(data))


def canonical() -> dict[str, str]:
    with gzip.open(DATA / "humaneval/HumanEval.jsonl.gz", "rt") as stream:
        rows = [json.loads(line) for line in stream]
    return {row["task_id"]: row["canonical_solution"] for row in rows}


def passes(answers: Mapping[str, str], names: list[str]) -> int:
    prompts = {prompt.id: prompt for prompt in humaneval.load(DATA)}
    jobs = [humaneval.job(prompts[name], answers[name]) for name in names]

    async def run_all() -> list[Outcome]:
        runs = (SANDBOX.run(job.code, job.tests, job.names) for job in jobs)
        return list(await asyncio.gather(*runs))

    return sum(outcome.passed for outcome in asyncio.run(run_all()))


@needs_data
def test_canonical_solutions_pass_and_forgeries_do_not() -> None:
    # 32, 38 and 50 use helpers of the problem; 53 compares sums of random numbers.
    names = [f"HumanEval/{number}" for number in (0, 4, 32, 38, 50, 53)]
    assert passes(canonical(), names) == len(names)
    entry = {p.id: p.checks[0].args["entry_point"] for p in humaneval.load(DATA)}
    for forgery in FORGERIES.values():
        assert passes({n: forgery.replace("NAME", entry[n]) for n in names[:2]}, names[:2]) == 0


@needs_data
@pytest.mark.slow
def test_all_canonical_solutions_pass() -> None:
    answers = canonical()
    assert passes(answers, list(answers)) == 164


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_no_forgery_passes_any_problem(forgery: str) -> None:
    prompts = list(humaneval.load(DATA))
    answers = {p.id: forgery.replace("NAME", p.checks[0].args["entry_point"]) for p in prompts}
    assert passes(answers, list(answers)) == 0


@needs_data
def test_the_stored_example_of_humaneval_scores_one_half(tmp_path: Path) -> None:
    folder = DATA / "humaneval"
    results = run(
        folder / "example_problem.jsonl",
        tmp_path,
        ["humaneval"],
        answers=folder / "example_samples.jsonl",
        sandbox=Sandbox(SandboxSettings(policy="limited-ok", seconds=2)),
    )
    found = results["humaneval"].metrics["code"]
    assert (found["mean"], found["n"]) == (0.5, 6)


@needs_data
def test_all_541_prompts_of_ifeval_can_be_scored() -> None:
    prompts = list(ifeval.load(DATA))
    assert len(prompts) == 541 and sum(len(p.checks) for p in prompts) == 834
    for prompt in prompts:
        asyncio.run(ifeval.score(prompt, "An answer."))
