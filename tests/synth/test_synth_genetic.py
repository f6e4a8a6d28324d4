"""Genetic Instruct: only code that parses, runs, passes and is judged fit breeds on."""

import asyncio
import re
from dataclasses import dataclass

import pytest

from flywright.ask import AskError, Ledger, Ledgered, Scripted
from flywright.errors import FlywrightError
from flywright.synth import GeneticSettings, Maker
from flywright.synth.genetic import genetic

SETTINGS = GeneticSettings(colonies=2, generations=2, target=6, rounds=4, brood=4, tests=1)


@dataclass
class Outcome:
    passed: bool
    error: str = ""


class Runner:
    """Runs code in this process: the tests' own code only."""

    def __init__(self):
        self.jobs = []

    async def run(self, code, tests):
        self.jobs.append((code, list(tests)))
        names = {}
        try:
            exec(code, names)
            for test in tests:
                exec(test, names)
        except Exception as error:
            return Outcome(False, repr(error))
        return Outcome(bool(tests))


def kind_of(task):
    """Each task's number says what its code is like."""
    number = int(re.search(r"(\d+)", task).group(1))
    return ("good", "broken", "no function", "crashes", "wrong", "ugly", "untested")[number % 7]


CODES = {
    "good": "def f(x):\n    return x + {n}",
    "ugly": "def f(x):\n    return x + {n}  # ugly",
    "untested": "def f(x):\n    return x + {n}  # untested",
    "wrong": "def f(x):\n    return x - {n}",
    "crashes": "def f(x):\n    return x + {n}\nf('text')",
    "no function": "print({n})",
    "broken": "def f(x) return x + {n}",
}


def colony_reply(prompt, sampling):
    text = prompt.last
    if text.startswith("Here are some coding tasks"):
        return "\n".join(f"{i}. task {sampling.seed % 99991 + i} made anew" for i in (1, 2))
    if text.startswith("Make this coding task"):
        return f"task {sampling.seed % 99991} made harder"
    task = re.search(r"Task: (.*)", text).group(1)
    number = re.search(r"\d+", task).group()
    if text.startswith("Solve"):
        return f"```python\n{CODES[kind_of(task)].format(n=number)}\n```"
    if text.startswith("Write"):
        return "I cannot." if kind_of(task) == "untested" else f"assert f(1) == 1 + {number}"
    return "Verdict: No" if "# ugly" in text else "Good.\nVerdict: Yes"


def breed(completer, small, make_prompt, runner=None):
    seeds = [make_prompt(f"seed task {n} of all", task="code") for n in (0, 7, 14)]
    maker = Maker(completer, small, seed=9)
    return maker, seeds, asyncio.run(genetic(maker, seeds, SETTINGS, runner or Runner()))


def test_only_fit_code_survives_and_reasons_are_counted(small, make_prompt):
    runner = Runner()
    maker, _, made = breed(Scripted(colony_reply, model="m"), small, make_prompt, runner)
    kinds = {kind_of(dialogue.conversation.messages[0].content) for dialogue in made}
    assert kinds == {"good", "untested"}
    fitness = maker.counts["genetic fitness"]
    for reason in (
        "code does not parse",
        "code defines no function",
        "execution failed",
        "judged unfit",
    ):
        assert fitness[f"dropped: {reason}"] > 0
    assert fitness["out"] >= len(made) > 6
    assert ["assert callable(f)"] in [tests for _, tests in runner.jobs]
    for dialogue in made:
        compile(dialogue.conversation.last, "answer", "exec")
        assert (
            dialogue.lineage.verdicts[0].preference == 1 and dialogue.lineage.answer_by == "model"
        )
        tested = kind_of(dialogue.conversation.messages[0].content) == "good"
        assert dialogue.lineage.filters == (("passed 1 tests",) if tested else ("runs",))


def test_lineage_leads_back_to_the_seeds(small, make_prompt):
    _, seeds, made = breed(Scripted(colony_reply, model="m"), small, make_prompt)
    known = {seed.id for seed in seeds}
    methods = set()
    for dialogue in made:
        assert dialogue.lineage.parents and set(dialogue.lineage.parents) <= known
        known.add(dialogue.id)
        methods.add(dialogue.lineage.template.partition("/")[2])
    assert "crossover" in methods and len(methods) >= 3
    assert any(set(d.lineage.parents) - {seed.id for seed in seeds} for d in made)


def test_tasks_are_new_and_the_run_is_deterministic(small, make_prompt, late):
    runs = [breed(late(seed, colony_reply), small, make_prompt)[2] for seed in range(2)]
    assert runs[0] == runs[1]
    tasks = [dialogue.conversation.messages[0].content for dialogue in runs[0]]
    assert len(set(tasks)) == len(tasks) <= 2 * 2 * SETTINGS.target


def test_copies_of_the_seeds_are_not_bred(small, make_prompt):
    def copier(prompt, sampling):
        if prompt.last.startswith("Make"):
            return "Seed  task 7 of all."
        if prompt.last.startswith("Here are some"):
            return "1. seed task 0 of all\n2. seed task 14 of all"
        return colony_reply(prompt, sampling)

    maker, _, made = breed(Scripted(copier), small, make_prompt)
    assert made == [] and maker.counts["genetic instruct"]["out"] > 0
    assert maker.counts["genetic fitness"]["in"] == 0  # nothing is paid for a copy


def test_a_broken_run_goes_on_without_paying_twice(small, make_prompt, late, tmp_path):
    _, _, whole = breed(Scripted(colony_reply, model="fake"), small, make_prompt)
    calls = 0

    def failing(prompt, sampling):
        nonlocal calls
        calls += 1
        if calls > 40:
            raise AskError("the line is dead", retryable=True)
        return colony_reply(prompt, sampling)

    few = small.model_copy(update={"concurrency": 1})
    with Ledger(tmp_path / "replies.jsonl") as ledger:
        with pytest.raises(FlywrightError, match="the line is dead"):
            breed(Ledgered(Scripted(failing, model="fake"), ledger), small, make_prompt)
        known = len(ledger)
        again = Ledgered(late(5, colony_reply), ledger)
        _, _, resumed = breed(again, few, make_prompt)  # another concurrency, another order
        assert known == 40  # every reply that came is kept
        assert resumed == whole and again.paid == len(ledger) - known
