"""Arithmetic: single-digit and carry-free sums and differences; carrying sums are the far split."""

from collections.abc import Callable
from random import Random
from typing import Any

from flywright.world.families import Fields, number, worded


def carries(a: int, b: int) -> bool:
    """True if adding two two-digit numbers by columns carries anywhere."""
    return a % 10 + b % 10 > 9 or a // 10 + b // 10 > 9


def _digits(rng: Random) -> Fields:
    return {"a": str(rng.randint(0, 9)), "b": str(rng.randint(0, 9))}


def _addends(carrying: bool) -> Callable[[Random], Fields]:
    """Two-digit numbers whose sum carries somewhere, or nowhere."""

    def draw(rng: Random) -> Fields:
        while True:
            a, b = rng.randint(10, 99), rng.randint(10, 99)
            if carries(a, b) == carrying:
                return {"a": str(a), "b": str(b)}

    return draw


def _difference(rng: Random) -> Fields:
    """Differences of two-digit numbers without borrowing: a sum read backwards."""
    fields = _addends(False)(rng)
    return {"a": str(int(fields["a"]) + int(fields["b"])), "b": fields["b"]}


def _pair(rng: Random) -> Fields:
    a, b = rng.sample(range(1, 100), 2)
    return {"a": str(a), "b": str(b)}


def _three(rng: Random) -> Fields:
    return {key: str(rng.randint(1, 9)) for key in "abc"}


def _sum(fields: Fields) -> str:
    return str(sum(int(fields[key]) for key in "abc" if key in fields))


def _minus(fields: Fields) -> str:
    return str(int(fields["a"]) - int(fields["b"]))


def _larger(fields: Fields) -> str:
    return str(max(int(fields["a"]), int(fields["b"])))


def add_by_columns(fields: Fields) -> str:
    """The worked steps of a carry-free sum of two-digit numbers, ones first."""
    a, b = int(fields["a"]), int(fields["b"])
    ones, tens = a % 10 + b % 10, a // 10 + b // 10
    steps = f"ones {a % 10} + {b % 10} = {ones}, tens {a // 10} + {b // 10} = {tens}"
    return f"{a} + {b}: {steps}, so {a} + {b} = {a + b}"


def _checked(solve: Callable[[Fields], str]) -> Any:
    """A solution, and the check that an answer is this number."""
    return {"solve": solve, "checks": lambda fields: number(solve(fields))}


_ONE_DIGIT, _TWO_DIGITS = ({"a": digits, "b": digits} for digits in (r"\d", r"\d\d"))
_SUM, _MINUS, _LARGER = _checked(_sum), _checked(_minus), _checked(_larger)

FAMILIES = (
    worded("add_digits", _digits, **_SUM, patterns=_ONE_DIGIT, known=True),
    worded("add", _addends(False), **_SUM, patterns=_TWO_DIGITS),
    worded("add_carry", _addends(True), **_SUM, like="add", patterns=_TWO_DIGITS, far=True),
    worded("add_three", _three, **_SUM, far=True),
    worded("subtract", _difference, **_MINUS, patterns=_TWO_DIGITS),
    worded("larger_number", _pair, **_LARGER),
)
