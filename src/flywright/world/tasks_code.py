"""Code tasks: a short Python function in one line of request, with visible and hidden tests.

A request is "Write a Python function NAME(ARG) that ACTION."; an action is an operation with its
constant filled in. Most hidden tests use other inputs than the visible ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from flywright.files import seed_from
from flywright.records import Check
from flywright.world.families import Fields, as_pattern, worded
from flywright.world.words import WORDS, table

NAMES = tuple(word for word in WORDS if len(word) <= 6)
VISIBLE_TESTS, HIDDEN_TESTS = 2, 4


@dataclass(frozen=True)
class Operation:
    argument: str
    action: str
    expression: str


OPERATIONS = {
    argument: tuple(Operation(argument, *words) for words in operations)
    for argument, operations in table("code").items()
}
_SUMS = OPERATIONS["x"][:3]
_CONSTANTS = {"x": 20, "s": 5, "v": 9}  # the largest, by argument
GUARD = ", but 0 if x is negative"
THEN = " and then "

_ACTION_PATTERNS = [
    (operation, as_pattern(operation.action, {"n": r"\d+", "arg": "[a-z]"}))
    for operations in OPERATIONS.values()
    for operation in operations
]


@dataclass(frozen=True)
class Plan:
    """What a request asks for, read from its words: steps in order, and a guard or none."""

    argument: str
    steps: tuple[tuple[Operation, int], ...]
    guarded: bool

    def source(self, name: str) -> str:
        lines = [f"def {name}({self.argument}):"]
        if self.guarded:
            lines += [f"    if {self.argument} < 0:", "        return 0"]
        for index, (operation, n) in enumerate(self.steps):
            last = index == len(self.steps) - 1
            keep = "return" if last else f"{self.argument} ="
            lines.append(f"    {keep} {operation.expression.format(arg=self.argument, n=n)}")
        return "\n".join(lines)

    def function(self) -> Callable[[Any], Any]:
        names: dict[str, Any] = {}
        exec(self.source("solution"), names)
        return names["solution"]


def plan_of(fields: Fields) -> Plan:
    """The plan behind a prompt's action. Raises ValueError if its words are not understood."""
    action = fields["action"]
    steps = []
    for part in action.split(GUARD.split("x")[0])[0].split(THEN):
        found = ((operation, pattern.search(part)) for operation, pattern in _ACTION_PATTERNS)
        operation, match = next((pair for pair in found if pair[1]), (None, None))
        if operation is None or match is None:
            raise ValueError(f"not a task of this world: {action!r}")
        steps.append((operation, int(match.groupdict().get("n") or 0)))
    return Plan(steps[-1][0].argument, tuple(steps), guarded="is negative" in action)


def solution(fields: Fields) -> str:
    return plan_of(fields).source(fields["name"])


def _input(argument: str, edge: int | None, rng: Random) -> Any:
    """An input at random; with `edge`, one that holds this number, where comparisons turn."""
    if argument == "x":
        drawn = rng.choice((rng.randint(-9, -1), rng.randint(0, 9), rng.randint(10, 30)))
        return drawn if edge is None else edge
    if argument == "s":
        return rng.choice(WORDS)
    items = [rng.randint(0, 9) for _ in range(rng.randint(3, 6))]
    return items if edge is None else [edge, *items]


def asserts(fields: Fields, count: int, seed: int) -> list[str]:
    """`count` different true assert lines for the function that the fields ask for.

    Some inputs are the constant itself and its neighbour, where "greater than" turns.
    """
    plan, rng = plan_of(fields), Random(seed_from("asserts", seed, fields["action"]))
    lines: dict[str, None] = {}
    compute, constant = plan.function(), plan.steps[0][1]
    edges = {0: constant, VISIBLE_TESTS: constant + 1}
    while len(lines) < count:
        value = _input(plan.argument, edges.pop(len(lines), None), rng)
        lines[f"assert {fields['name']}({value!r}) == {compute(value)!r}"] = None
    return list(lines)


def _checks(fields: Fields) -> tuple[Check, ...]:
    tests = asserts(fields, VISIBLE_TESTS + HIDDEN_TESTS, 0)
    args = {"entry_point": fields["name"], "tests": tests[:VISIBLE_TESTS]}
    args["hidden_tests"] = [*tests[VISIBLE_TESTS:], tests[0]]  # which tries the constant itself
    return (Check(kind="code", args=args),)


def _request(rng: Random, argument: str, action: str) -> Fields:
    return {"name": rng.choice(NAMES), "arg": argument, "action": action}


def _action(rng: Random, operation: Operation, largest: int) -> str:
    return operation.action.format(arg=operation.argument, n=rng.randint(2, largest))


def _one_step(operations: tuple[Operation, ...], rng: Random, end: str = "") -> Fields:
    operation = rng.choice(operations)
    action = _action(rng, operation, _CONSTANTS[operation.argument])
    return _request(rng, operation.argument, action + end)


def _two_steps(rng: Random) -> Fields:
    first, second = (_action(rng, operation, 9) for operation in rng.sample(_SUMS, 2))
    return _request(rng, "x", first + THEN + second)


NUMBER = worded("code_number", solution, partial(_one_step, OPERATIONS["x"]), checks=_checks)
GUARDED = worded("code_guard", solution, partial(_one_step, _SUMS, end=GUARD), checks=_checks)
CODE = (  # those that are trained on
    NUMBER,
    worded("code_text", solution, partial(_one_step, OPERATIONS["s"]), checks=_checks),
    worded("code_list", solution, partial(_one_step, OPERATIONS["v"]), checks=_checks),
    GUARDED,
)
FAMILIES = (*CODE, worded("code_two_steps", solution, _two_steps, checks=_checks))
