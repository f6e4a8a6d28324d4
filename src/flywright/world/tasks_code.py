"""Code tasks: a short Python function in one line of request, with visible and hidden tests.

A request is "Write a Python function NAME(ARG) that ACTION."; an action is an operation with its
constant filled in. Most hidden tests use other inputs than the visible ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from random import Random
from types import CodeType
from typing import Any

from flywright.files import seed_from
from flywright.records import Check
from flywright.world.families import Family, Fields, as_pattern, worded
from flywright.world.words import WORDS, table

NAMES = tuple(word for word in WORDS if len(word) <= 6)
VISIBLE_TESTS, HIDDEN_TESTS = 2, 4


@dataclass(frozen=True)
class Operation:
    """One thing a function can do: how it is asked and written; what is written is computed."""

    argument: str
    action: str
    expression: str

    @cached_property
    def _code(self) -> CodeType:
        return compile(self.expression.format(arg=self.argument, n="n"), self.action, "eval")

    def compute(self, value: Any, n: int) -> Any:
        """The result for one input and the constant `n`."""
        return eval(self._code, {self.argument: value, "n": n})


OPERATIONS = {
    argument: tuple(Operation(argument, *words) for words in operations)
    for argument, operations in table("code").items()
}
_SUMS = OPERATIONS["x"][:3]
GUARD = ", but 0 if {arg} is negative"
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

    def compute(self, value: Any) -> Any:
        """The right result for one input."""
        if self.guarded and value < 0:
            return 0
        for operation, n in self.steps:
            value = operation.compute(value, n)
        return value

    def source(self, name: str) -> str:
        """A right solution."""
        lines = [f"def {name}({self.argument}):"]
        if self.guarded:
            lines += [f"    if {self.argument} < 0:", "        return 0"]
        for index, (operation, n) in enumerate(self.steps):
            last = index == len(self.steps) - 1
            keep = "return" if last else f"{self.argument} ="
            lines.append(f"    {keep} {operation.expression.format(arg=self.argument, n=n)}")
        return "\n".join(lines)


def read_action(action: str) -> Plan | None:
    """The plan behind an action's words, or None if they are not understood."""
    guarded = "is negative" in action
    steps, argument = [], "x"
    for part in action.split(GUARD.split("{")[0])[0].split(THEN):
        for operation, pattern in _ACTION_PATTERNS:
            if found := pattern.search(part):
                argument = operation.argument
                steps.append((operation, int(found.groupdict().get("n") or 0)))
                break
        else:
            return None
    return Plan(argument, tuple(steps), guarded)


def plan_of(fields: Fields) -> Plan:
    """The plan of a prompt's fields."""
    plan = read_action(fields["action"])
    assert plan is not None, fields
    return plan


def solution(fields: Fields) -> str:
    """A right solution of the prompt."""
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
    constant = plan.steps[0][1]
    edges = {0: constant, VISIBLE_TESTS: constant + 1}
    while len(lines) < count:
        value = _input(plan.argument, edges.pop(len(lines), None), rng)
        lines[f"assert {fields['name']}({value!r}) == {plan.compute(value)!r}"] = None
    return list(lines)


def _checks(fields: Fields) -> tuple[Check, ...]:
    tests = asserts(fields, VISIBLE_TESTS + HIDDEN_TESTS, 0)
    args = {"entry_point": fields["name"]}
    hidden = [*tests[VISIBLE_TESTS:], tests[0]]  # the first tries the constant itself
    args |= {"tests": tests[:VISIBLE_TESTS], "hidden_tests": hidden}
    return (Check(kind="code", args=args),)


def _request(rng: Random, argument: str, action: str) -> Fields:
    return {"name": rng.choice(NAMES), "arg": argument, "action": action}


def _action(rng: Random, argument: str) -> str:
    operation = rng.choice(OPERATIONS[argument])
    high = {"x": 20, "s": 5, "v": 9}[argument]
    return operation.action.format(arg=argument, n=rng.randint(2, high))


def _one_step(argument: str) -> Callable[[Random], Fields]:
    return lambda rng: _request(rng, argument, _action(rng, argument))


def _guarded(rng: Random) -> Fields:
    operation = rng.choice(_SUMS)
    action = operation.action.format(arg="x", n=rng.randint(2, 20))
    return _request(rng, "x", action + GUARD.format(arg="x"))


def _two_steps(rng: Random) -> Fields:
    first, second = (op.action.format(arg="x", n=rng.randint(2, 9)) for op in rng.sample(_SUMS, 2))
    return _request(rng, "x", first + THEN + second)


_PLAIN, _GUARDED = r"(?:(?! and then )[^.,\n])+", r"[^.,\n]+, but 0 if x is negative"
_COMPOSED = r"[^.,\n]+ and then [^.,\n]+"


def _family(
    name: str, draw: Callable[[Random], Fields], argument: str, action: str = _PLAIN, **more: Any
) -> Family:
    """One code family; `argument` and `action` tell its requests from those of the others."""
    patterns = {"action": action, "arg": argument}
    return worded(name, draw, solution, like="code", checks=_checks, patterns=patterns, **more)


FAMILIES = (
    _family("code_number", _one_step("x"), "x", weight=3),
    _family("code_text", _one_step("s"), "s", weight=2),
    _family("code_list", _one_step("v"), "v", weight=2),
    _family("code_guard", _guarded, "x", _GUARDED),
    _family("code_two_steps", _two_steps, "x", _COMPOSED, far=True, weight=2),
)
