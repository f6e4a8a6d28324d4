"""Arithmetic: single-digit and carry-free sums and differences; carrying sums are the far split."""

from collections.abc import Callable
from random import Random

from flywright.world.families import Fields, worded


def carries(a: int, b: int) -> bool:
    """True if adding two two-digit numbers by columns carries anywhere."""
    return a % 10 + b % 10 > 9 or a // 10 + b // 10 > 9


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
    return {"a": _sum(fields), "b": fields["b"]}


def _pair(rng: Random) -> Fields:
    a, b = rng.sample(range(1, 100), 2)
    return {"a": str(a), "b": str(b)}


def _sum(fields: Fields) -> str:
    return str(sum(map(int, fields.values())))


def add_by_columns(fields: Fields) -> str:
    """The worked steps of a carry-free sum of two-digit numbers, ones first."""
    a, b = int(fields["a"]), int(fields["b"])
    ones, tens = a % 10 + b % 10, a // 10 + b // 10
    steps = f"ones {a % 10} + {b % 10} = {ones}, tens {a // 10} + {b // 10} = {tens}"
    return f"{a} + {b}: {steps}, so {a} + {b} = {a + b}"


SUMS = (  # those that are trained on
    worded("add_digits", _sum),
    worded("add", _sum, _addends(False)),
    worded("subtract", lambda fields: str(int(fields["a"]) - int(fields["b"])), _difference),
    worded("larger_number", lambda fields: str(max(map(int, fields.values()))), _pair),
)
FAMILIES = (
    *SUMS[:2],
    worded("add_carry", _sum, _addends(True)),
    worded("add_three", _sum, lambda rng: {key: str(rng.randint(1, 9)) for key in "abc"}),
    *SUMS[2:],
)
