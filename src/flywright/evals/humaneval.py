"""HumanEval: 164 functions to write, pass@k on their unit tests, run in the sandbox (SPEC 10.1).

An answer may be the whole function, in a code fence or not, or only what follows the given head.
Tests see the asked function alone; helpers that the problem gives come from the problem itself.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from math import comb
from pathlib import Path

from flywright.data.rows import read_rows
from flywright.errors import UserError
from flywright.evals import words
from flywright.evals.datafiles import field, find, problem
from flywright.evals.items import Item, Task, item_of
from flywright.judge.truth import extract_code
from flywright.records import Check, Prompt
from flywright.sandbox import Job, Sandbox
from flywright.stats import bootstrap_mean

REQUEST = "Complete this Python function. Answer with the whole function in one code block.\n\n"
PASS_AT = (1, 2, 5, 10, 100)


def load(path: Path) -> Iterator[Prompt]:
    """The problems of humaneval/HumanEval.jsonl; `head` is the given beginning of the program."""
    path = find(path, "humaneval", "HumanEval.jsonl")
    for row in read_rows(path):
        args = {"entry_point": field(path, row, "entry_point")}
        args |= {"head": field(path, row, "prompt"), "test": field(path, row, "test")}
        args["reference"] = args["head"] + row.get("canonical_solution", "")
        asked, tests = f"{REQUEST}```python\n{args['head']}```", Check(kind="code", args=args)
        yield problem("humaneval", field(path, row, "task_id"), asked, tests)


def _start(head: str, entry_point: str) -> int:
    """Where the asked function begins in the head."""
    found = re.search(rf"^def {re.escape(entry_point)}\b", head, re.MULTILINE)
    return found.start() if found else len(head)


def program(head: str, entry_point: str, answer: str) -> str:
    """The whole program: the answer alone if it defines the function, else after the head."""
    code = extract_code(answer, entry_point)
    if re.search(rf"^def {re.escape(entry_point)}\b", code, re.MULTILINE):
        return head[: _start(head, entry_point)] + code
    return head + code


def job(prompt: Prompt, answer: str) -> Job:
    """What the sandbox is to run: the program, and the tests behind the problem's own helpers."""
    args = prompt.checks[0].args
    head, entry_point = args["head"], args["entry_point"]
    helpers = head[: _start(head, entry_point)]
    tests = (helpers, args["test"], f"check({entry_point})")
    reference = args.get("reference", "")
    return Job(program(head, entry_point, answer), tests, (entry_point,), reference)


async def scored(
    job_of: Callable[[Prompt, str], Job], prompt: Prompt, answer: str, sandbox: Sandbox | None
) -> list[Item]:
    """One item: 1 if the tests pass. Raises UserError without a sandbox."""
    if sandbox is None:
        raise UserError(f"{prompt.task} runs code: it needs a sandbox")
    task = job_of(prompt, answer)
    outcome = await sandbox.run(task.code, task.tests, task.names, task.reference)
    return [item_of(prompt, "code", float(outcome.passed), answer, detail=outcome.error)]


def pass_at_k(items: Iterable[Item]) -> dict[str, dict[str, float]]:
    """ "pass@k" -> {mean, low, high, n problems}, for each k up to the fewest samples of a problem.

    A problem with c of its n samples right counts 1 - C(n-c, k) / C(n, k), the unbiased estimate
    (arXiv:2107.03374, equation 1). Samples of a problem are the items "ID", "ID~1", "ID~2".
    """
    right: dict[str, list[float]] = defaultdict(list)
    for item in items:
        right[item.id.partition("~")[0]].append(item.score)
    counts = [(len(scores), len(scores) - round(sum(scores))) for scores in right.values()]
    fewest = min((n for n, _ in counts), default=0)
    means: dict[str, dict[str, float]] = {}
    for k in (k for k in PASS_AT if k <= fewest):
        problems = [1 - comb(wrong, k) / comb(n, k) for n, wrong in counts]
        means[f"pass@{k}"] = bootstrap_mean(problems).as_dict()
    return means


def continued(
    name: str, load_chat: Callable[..., Iterator[Prompt]], path: Path
) -> Iterator[Prompt]:
    """The same problems for a base model, which goes on from the head of each."""
    for prompt in load_chat(path):
        check = prompt.checks[0]
        args = check.args | {"context": check.args["head"], "stop": ""}
        checks = (check.model_copy(update={"args": args}),)
        yield prompt.model_copy(update={"task": name, "checks": checks})


score = partial(scored, job)
HUMANEVAL_BASE = Task(
    "humaneval_base",
    partial(continued, "humaneval_base", load),
    score,
    max_tokens=1024,
    request=REQUEST,
    ask=words.ask,
    stop=("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
    summary=pass_at_k,
    runs_code=True,
    protocol="0-shot continuation of the given head, cut at the next statement; unit tests",
)
HUMANEVAL = Task(
    "humaneval",
    load,
    score,
    max_tokens=512,
    request=REQUEST,
    version=2,
    summary=pass_at_k,
    runs_code=True,
)
