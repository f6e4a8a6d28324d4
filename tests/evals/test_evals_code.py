"""Code benchmarks: right programs pass, forged ones do not, and pass@k is the unbiased estimate."""

import asyncio
import os
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from flywright.evals import humaneval, mbpp
from flywright.evals.datafiles import problem
from flywright.evals.items import item_of
from flywright.records import Check, Prompt
from flywright.sandbox import Outcome, Sandbox, SandboxSettings

DATA = Path(os.environ.get("FLYWRIGHT_DATA", Path(__file__).parents[2] / "../shared/data"))
SANDBOX = Sandbox(SandboxSettings(policy="limited-ok", seconds=10))

needs_data = pytest.mark.skipif(
    not (DATA / "mbpp").is_dir(), reason=f"no benchmark files in {DATA} (FLYWRIGHT_DATA)"
)
FORGED = """
import atexit, builtins, gc, json, os, sys, threading
def lie(*args, **kwargs): return True
def write():
    for handle in range(64):
        try: os.write(handle, b'{"nonce": "0", "error": "", "value": true, "args": []}\\n')
        except OSError: pass
class Yes:
    __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = __contains__ = __bool__ = lie
    __sub__ = __add__ = __rsub__ = __abs__ = __float__ = lambda self, *_: 0.0
    __hash__ = lambda self: 0
"""
FORGERIES = {  # what the asked function does
    "an object of a type that claims equality": "return Yes()",
    "such an object within plain data": "return [Yes(), {'a': Yes()}, (Yes(),)]",
    "new built-ins": "builtins.abs = builtins.all = builtins.set = lie; return 0.5",
    "a new json": "json.loads = json.dumps = lambda *_, **__: {'value': True}; return 0.5",
    "the main module's names": "vars(sys.modules['__main__']).update(encode=lie, judged=lie)",
    "a verdict at exit": "atexit.register(write); sys.exit(0)",
    "a verdict from a thread": "threading.Thread(target=write).start(); os._exit(0)",
    "a verdict from a child": "os.fork() or write(); os._exit(0)",
    "a recursion to the end": "return sys.setrecursionlimit(10**9) or NAME(*args)",
}


def judge(*tasks: Any) -> list[Outcome]:
    async def run_all() -> list[Outcome]:
        runs = (SANDBOX.run(task.code, task.tests, task.names, task.reference) for task in tasks)
        return list(await asyncio.gather(*runs))

    return asyncio.run(run_all())


def problems() -> list[Prompt]:
    return list(humaneval.load(DATA))


@needs_data
@pytest.mark.parametrize("body", FORGERIES.values(), ids=FORGERIES)
@pytest.mark.parametrize("number", [2, pytest.param(None, marks=pytest.mark.slow)])
def test_no_forged_function_solves_a_problem(body: str, number: int | None) -> None:
    prompts = problems() if number is None else problems()[number : number + 1]
    names = [prompt.checks[0].args["entry_point"] for prompt in prompts]
    answers = [f"{FORGED}\ndef NAME(*args): {body}\n".replace("NAME", name) for name in names]
    outcomes = judge(*map(humaneval.job, prompts, answers))
    assert sum(outcome.passed for outcome in outcomes) == 0


@needs_data
def test_mbpp_is_its_500_test_problems_and_shows_their_asserts() -> None:
    prompts = list(mbpp.load(DATA))
    assert [prompt.id for prompt in prompts[:2]] == ["mbpp/11", "mbpp/12"] and len(prompts) == 500
    assert "remove first and last occurrence" in prompts[0].conversation.last
    assert 'assert remove_Occ("hello","l") == "heo"' in prompts[0].conversation.last


def rights(path: Path, ids: range) -> list[Outcome]:
    prompts = list(mbpp.load(path, ids))
    answers = [f"```python\n{prompt.checks[0].args['reference']}\n```" for prompt in prompts]
    return judge(*map(mbpp.job, prompts, answers))


@needs_data
def test_odd_reference_solutions_of_mbpp_pass() -> None:
    # `sum` is asked for; objects of the code; a type is handed in; a module of the code is used
    for number in (126, 367, 533, 596, 601, 927):
        (outcome,) = rights(DATA, range(number, number + 1))
        assert outcome.error == "", number


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("", 974), ("mbpp/sanitized-mbpp.json.gz", 427)])
def test_all_reference_solutions_of_mbpp_pass(name: str, count: int) -> None:
    outcomes = rights(DATA / name, range(1, 975))
    assert [outcome.error for outcome in outcomes] == [""] * count


def test_helpers_of_an_mbpp_answer_cannot_stand_in_for_what_tests_use() -> None:
    args = {"names": ["f"], "setup": "", "tests": ["assert set(f(1)) == set([1])"], "reference": ""}
    prompt = problem("mbpp", "mbpp/0", "?", Check(kind="code", args=args))
    forged = "def set(x): return 0\ndef f(x): return []"
    right = "def set(x): return 0\ndef f(x): return [x]"
    assert [one.passed for one in judge(mbpp.job(prompt, forged), mbpp.job(prompt, right))] == [
        False,
        True,
    ]


def test_pass_at_k_is_the_share_of_draws_with_a_right_sample() -> None:
    samples = {"a": [1, 0, 0, 1, 0], "b": [0, 0, 0, 0, 0], "c": [1, 1, 1, 1, 1, 0]}
    items = []
    for name, scores in samples.items():
        for copy, score in enumerate(scores):
            prompt = problem("humaneval", f"{name}~{copy}" if copy else name, "?")
            items.append(item_of(prompt, "code", float(score), ""))
    found = humaneval.pass_at_k(items)
    assert list(found) == ["pass@1", "pass@2", "pass@5"]
    for k in (1, 2, 5):
        draws = [[any(draw) for draw in combinations(scores, k)] for scores in samples.values()]
        wanted = sum(sum(drawn) / len(drawn) for drawn in draws) / len(draws)
        assert abs(found[f"pass@{k}"]["mean"] - wanted) < 1e-12 and found[f"pass@{k}"]["n"] == 3
    assert humaneval.pass_at_k([]) == {}
