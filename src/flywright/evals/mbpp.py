"""MBPP: 500 short functions to write (ids 11 to 510), with three asserts shown (SPEC 10.1).

Takes mbpp.jsonl or the sanitized file. Tests see those of the answer's functions and classes that
the reference solution defines, too, and nothing else of it.
"""

import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from flywright.data.rows import read_rows
from flywright.evals import words
from flywright.evals.datafiles import field, find, problem
from flywright.evals.humaneval import pass_at_k, scored
from flywright.evals.items import Task
from flywright.judge.truth import extract_code
from flywright.records import Check, Prompt
from flywright.sandbox import Job

REQUEST = "Write this Python program. Answer with the whole program in one code block.\n\n"
BASE = "You are an expert Python programmer, and here is your task: "  # lm-evaluation-harness's
TEST_IDS = range(11, 511)
_DEFINED = re.compile(r"^(?:def|class) +(\w+)", re.MULTILINE)


def load(path: Path, ids: range = TEST_IDS) -> Iterator[Prompt]:
    """The problems of mbpp/mbpp.jsonl with these ids."""
    path = find(path, "mbpp", "mbpp.jsonl")
    for row in read_rows(path):
        if field(path, row, "task_id") in ids:
            yield _prompt(path, row)


def load_base(path: Path, shots: int = 3) -> Iterator[Prompt]:
    """The same for a base model: after the solved problems 2, 3 and 4 of the file."""
    solved = list(load(path, range(2, 2 + shots)))
    before = "".join(f"{_base(one)}{one.checks[0].args['reference']}\n[DONE]\n\n" for one in solved)
    for prompt in load(path):
        check = prompt.checks[0]
        args = check.args | {"context": before + _base(prompt), "stop": ""}
        checks = (check.model_copy(update={"args": args}),)
        yield prompt.model_copy(update={"task": "mbpp_base", "checks": checks})


def _base(prompt: Prompt) -> str:
    args = prompt.checks[0].args
    asked = f"{BASE}{args['words']} Your code should pass these tests:\n\n"
    return asked + "\n".join(args["tests"]) + "\n[BEGIN]\n"


def _prompt(path: Path, row: dict[str, Any]) -> Prompt:
    text = row["text"] if "text" in row else field(path, row, "prompt")
    tests, reference = field(path, row, "test_list"), field(path, row, "code")
    setup = "\n".join([*row.get("test_imports", ()), row.get("test_setup_code", "")])
    words = set(re.findall(r"\w+", "\n".join([setup, *tests])))
    args = {"names": [name for name in _DEFINED.findall(reference) if name in words]}
    args |= {"setup": setup, "tests": tests, "reference": reference, "words": text}
    asked = "\n".join([f"{REQUEST}{text}\nIt has to pass these tests:\n", *tests])
    return problem("mbpp", f"mbpp/{row['task_id']}", asked, Check(kind="code", args=args))


def job(prompt: Prompt, answer: str) -> Job:
    """What the sandbox is to run. Modules that the tests use by name are imported for them."""
    args = prompt.checks[0].args
    used = set(re.findall(r"\b(\w+)\.", "\n".join(args["tests"]))) - {*args["names"]}
    imports = [f"import {name}" for name in sorted(used & sys.stdlib_module_names)]
    tests = ("\n".join([*imports, args["setup"]]), *args["tests"])
    names = tuple(args["names"])
    return Job(extract_code(answer, names[0]), tests, names, args["reference"])


MBPP_BASE = Task(
    "mbpp_base",
    load_base,
    partial(scored, job),
    max_tokens=256,
    request=REQUEST,
    ask=words.ask,
    stop=("[DONE]",),
    summary=pass_at_k,
    runs_code=True,
    shots=3,
    protocol="three fixed examples, continuation up to [DONE]; unit tests",
)
MBPP = Task(
    "mbpp",
    load,
    partial(scored, job),
    max_tokens=512,
    request=REQUEST,
    summary=pass_at_k,
    runs_code=True,
)
