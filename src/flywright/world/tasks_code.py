"""Code tasks: a short Python function in one line of request, with visible and hidden tests.

A request is "Write a Python function NAME(ARG) that ACTION."; an action is an operation with its
constant filled in. Most hidden tests use other inputs than the visible ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from flywright.files import seed_from
from flywright.records import Check
from flywright.world.families import Family, Fields, as_pattern
from flywright.world.words import WORDS

NAMES = tuple(word for word in WORDS if len(word) <= 6)
VISIBLE_TESTS, HIDDEN_TESTS = 2, 4


@dataclass(frozen=True)
class Operation:
    """One thing a function can do: how it is asked, written and computed."""

    action: str
    expression: str
    compute: Callable[[Any, int], Any]


_NUMBERS = (
    Operation("adds {n} to {arg}", "{arg} + {n}", lambda x, n: x + n),
    Operation("subtracts {n} from {arg}", "{arg} - {n}", lambda x, n: x - n),
    Operation("multiplies {arg} by {n}", "{arg} * {n}", lambda x, n: x * n),
    Operation("tells if {arg} is greater than {n}", "{arg} > {n}", lambda x, n: x > n),
    Operation("tells if {arg} is equal to {n}", "{arg} == {n}", lambda x, n: x == n),
    Operation("gives the remainder of {arg} by {n}", "{arg} % {n}", lambda x, n: x % n),
    Operation("returns the square of {arg}", "{arg} * {arg}", lambda x, n: x * x),
)
_TEXTS = (
    Operation("repeats the text {arg} {n} times", "{arg} * {n}", lambda s, n: s * n),
    Operation("returns the first {n} letters of {arg}", "{arg}[:{n}]", lambda s, n: s[:n]),
    Operation("drops the first {n} letters of {arg}", "{arg}[{n}:]", lambda s, n: s[n:]),
    Operation("returns {arg} in upper case", "{arg}.upper()", lambda s, n: s.upper()),
    Operation("reverses the text {arg}", "{arg}[::-1]", lambda s, n: s[::-1]),
    Operation("returns the last letter of {arg}", "{arg}[-1]", lambda s, n: s[-1]),
    Operation("counts the letters of {arg}", "len({arg})", lambda s, n: len(s)),
)
_LISTS = (
    Operation(
        "adds {n} to each item of {arg}",
        "[i + {n} for i in {arg}]",
        lambda v, n: [i + n for i in v],
    ),
    Operation(
        "multiplies each item of {arg} by {n}",
        "[i * {n} for i in {arg}]",
        lambda v, n: [i * n for i in v],
    ),
    Operation(
        "keeps the items of {arg} greater than {n}",
        "[i for i in {arg} if i > {n}]",
        lambda v, n: [i for i in v if i > n],
    ),
    Operation("counts how often {n} is in {arg}", "{arg}.count({n})", lambda v, n: v.count(n)),
    Operation("returns the sum of the list {arg}", "sum({arg})", lambda v, n: sum(v)),
    Operation("returns the largest item of {arg}", "max({arg})", lambda v, n: max(v)),
    Operation("sorts the list {arg}", "sorted({arg})", lambda v, n: sorted(v)),
    Operation("returns the first item of {arg}", "{arg}[0]", lambda v, n: v[0]),
)
OPERATIONS = {"x": _NUMBERS, "s": _TEXTS, "v": _LISTS}
GUARD = ", but 0 if {arg} is negative"
THEN = " and then "

_ACTION_PATTERNS = [
    (operation, argument, as_pattern(operation.action, {"n": r"\d+", "arg": "[a-z]"}))
    for argument, operations in OPERATIONS.items()
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
        for operation, argument_name, pattern in _ACTION_PATTERNS:
            if found := pattern.search(part):
                argument = argument_name
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
    operation = rng.choice(_NUMBERS[:3])
    action = operation.action.format(arg="x", n=rng.randint(2, 20))
    return _request(rng, "x", action + GUARD.format(arg="x"))


def _two_steps(rng: Random) -> Fields:
    first, second = (
        op.action.format(arg="x", n=rng.randint(2, 9)) for op in rng.sample(_NUMBERS[:3], 2)
    )
    return _request(rng, "x", first + THEN + second)


_PHRASINGS = (
    "Write a Python function {name}({arg}) that {action}.",
    "Define the function {name}({arg}) that {action}.",
)


_PLAIN, _GUARDED = r"(?:(?! and then )[^.,\n])+", r"[^.,\n]+, but 0 if x is negative"
_COMPOSED = r"[^.,\n]+ and then [^.,\n]+"


def _family(
    name: str,
    draw: Callable[[Random], Fields],
    argument: str,
    action: str = _PLAIN,
    far: bool = False,
    weight: int = 2,
) -> Family:
    """One code family; `argument` and `action` tell its requests from those of the others."""
    patterns = {"action": action, "arg": argument}
    return Family(
        name, _PHRASINGS, draw, solution, _checks, patterns=patterns, far=far, weight=weight
    )


FAMILIES = (
    _family("code_number", _one_step("x"), "x", weight=3),
    _family("code_text", _one_step("s"), "s"),
    _family("code_list", _one_step("v"), "v"),
    _family("code_guard", _guarded, "x", _GUARDED, weight=1),
    _family("code_two_steps", _two_steps, "x", _COMPOSED, far=True),
)
