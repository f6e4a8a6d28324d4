"""Arithmetic: single-digit and carry-free sums and differences; carrying sums are the far split."""

from random import Random

from flywright.world.families import Family, Fields, number


def carries(a: int, b: int) -> bool:
    """True if adding two two-digit numbers by columns carries anywhere."""
    return a % 10 + b % 10 > 9 or a // 10 + b // 10 > 9


def _digits(rng: Random) -> Fields:
    return {"a": str(rng.randint(0, 9)), "b": str(rng.randint(0, 9))}


def _addends(rng: Random) -> Fields:
    """Two-digit numbers whose sum carries nowhere."""
    while True:
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        if not carries(a, b):
            return {"a": str(a), "b": str(b)}


def _carrying(rng: Random) -> Fields:
    while True:
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        if carries(a, b):
            return {"a": str(a), "b": str(b)}


def _difference(rng: Random) -> Fields:
    """Differences of two-digit numbers without borrowing: a sum read backwards."""
    fields = _addends(rng)
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


_TWO_DIGITS = {"a": r"\d\d", "b": r"\d\d"}
_ADD = ("What is {a} + {b}?", "Add {a} and {b}.", "Compute {a} + {b}.")

FAMILIES = (
    Family(
        "add_digits",
        _ADD,
        _digits,
        _sum,
        checks=lambda fields: number(_sum(fields)),
        patterns={"a": r"\d", "b": r"\d"},
        known=True,
        lessons=("{a} + {b} = {answer}", "{a} and {b} make {answer}.", "{answer} is {a} + {b}."),
    ),
    Family(
        "add",
        _ADD,
        _addends,
        _sum,
        checks=lambda fields: number(_sum(fields)),
        lessons=("{a} + {b} = {answer}", "The sum of {a} and {b} is {answer}.", "{steps}."),
        patterns=_TWO_DIGITS,
    ),
    Family(
        "add_carry",
        _ADD,
        _carrying,
        _sum,
        patterns=_TWO_DIGITS,
        checks=lambda fields: number(_sum(fields)),
        far=True,
    ),
    Family(
        "add_three",
        ("What is {a} + {b} + {c}?",),
        _three,
        _sum,
        checks=lambda fields: number(_sum(fields)),
        far=True,
    ),
    Family(
        "subtract",
        ("What is {a} - {b}?", "Take {b} away from {a}.", "Compute {a} - {b}."),
        _difference,
        _minus,
        checks=lambda fields: number(_minus(fields)),
        lessons=("{a} - {b} = {answer}", "{a} less {b} leaves {answer}."),
        patterns=_TWO_DIGITS,
    ),
    Family(
        "larger_number",
        ("Which number is larger, {a} or {b}?",),
        _pair,
        _larger,
        checks=lambda fields: number(_larger(fields)),
        lessons=(
            "Of {a} and {b} the larger is {answer}.",
            "{answer} is the larger of {a} and {b}.",
        ),
    ),
)
