"""Answers that can be written in several ways: mathematics, rounded numbers, lists of items.

    is_math(r"... so \\boxed{\\dfrac12}", "0.5")          is_rounded("Answer: 38.1%", 0.38095)
    are_items("Answer: Oslo and Rome", ["Rome", "Oslo"])

Only the end of an answer counts: the last box, what follows "answer:" or "answer is", else its last
line. Two forms of one value that no rule here knows count as different.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

_MARK = re.compile(r"(?i)\b(?:final )?answer(?: is|:)\s*(?=\S)")
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?<=\d)")
_WORDLESS = re.compile(r"\\(?:left|right|displaystyle|bigl?|bigr|!|,|;|:|quad|\s)|\\?[$%]|\s")
_UNIT = re.compile(r"(?<=[\d}])(?:\\,|\\ |\s)*\\(?:text|mbox|mathrm)\{[^{}]*\}(?:\^\{?\d\}?)?\s*$")
_RULES = (  # each way to write a thing, and the one way kept
    (re.compile(r"\\(?:text|textbf|mbox|mathrm|mathbf)\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\^(?:\{\\circ\}|\\circ)|\\degree"), ""),
    (re.compile(r"\\[dtc]frac"), r"\\frac"),
    (re.compile(r"\\frac(\d)(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac(\d)\{"), r"\\frac{\1}{"),
    (re.compile(r"\\sqrt(\d)"), r"\\sqrt{\1}"),
    (re.compile(r"\^\{(\w)\}"), r"^\1"),
    (re.compile(r"_\{(\w+)\}"), r"_\1"),
    (re.compile(r"(?<![\w}^])\{([A-Za-z]*)\}"), r"\1"),
    (re.compile(r"^[A-Za-z](?:\(\w\))?(?:=|\\in)"), ""),
    (re.compile(r"\\(?:le|ge)q"), lambda found: found.group()[:-1]),
    (re.compile(r"^(-?)\\frac\{(\d+)\}\{(\d+)\}$"), r"\1\2/\3"),
)
_FINANCIAL = re.compile(r"(\(?-?[$€£]?\s*-?)(\d[\d,]*(?:\.\d+)?|\.\d+)(\)?\s*(?:%|percent)?)")


def final(answer: str) -> str:
    """What an answer ends with."""
    start = answer.rfind("\\boxed{")
    if start >= 0:
        depth = 0
        for end in range(start + 6, len(answer)):
            depth += {"{": 1, "}": -1}.get(answer[end], 0)
            if not depth:
                return answer[start + 7 : end]
    lines = [line for line in answer.splitlines() if line.strip()] or [""]
    marked = [line for line in lines if _MARK.search(line)]
    return _MARK.split(marked[-1])[-1].strip() if marked else lines[-1].strip()


def plain_math(text: str) -> str:
    """A mathematical text in one of its spellings: no sizes, spaces, units or degree signs."""
    text = _UNIT.sub("", text.strip().rstrip("."))
    text = _WORDLESS.sub("", text)
    for pattern, kept in _RULES:
        text = pattern.sub(kept, text)
    return text


def _value(plain: str) -> Fraction | None:
    whole, slash, below = plain.partition("/")
    if not _NUMBER.fullmatch(whole) or (slash and not below.isdigit()):
        return None
    return Fraction(whole.replace(",", "")) / (int(below) or 1 if slash else 1)


def is_math(answer: str, expected: str) -> bool:
    """The end of the answer is the expected expression, or a number of the same value."""
    said, wanted = plain_math(final(answer)), plain_math(str(expected))
    value = _value(said)
    return bool(said) and (said == wanted or (value is not None and value == _value(wanted)))


def is_rounded(answer: str, expected: float) -> bool:
    """The last number at the end of the answer is the expected one, rounded to its own places.

    A loss may stand in parentheses; a number with % stands for a hundredth of it, or for the
    expected one itself. A number rounded by more than one part in a hundred is none.
    """
    found = _FINANCIAL.findall(final(answer))
    if not found:
        return False
    sign, digits, after = found[-1]
    loss = "-" in sign or sign[:1] + after[:1] == "()"
    value = float(digits.replace(",", "")) * (-1 if loss else 1)
    places = len(digits.partition(".")[2])
    parts = bool(after.strip(" )"))  # of a hundred
    return any(
        abs(value - wanted) <= min(0.5000001 * 10**-places, 0.01 * abs(wanted))
        for wanted in (expected, expected * 100)[: 1 + parts]
    )


def are_items(answer: str, expected: Sequence[str]) -> bool:
    """The end of the answer is these items in any order and nothing else; numbers by value."""
    rest = f" {_folded(final(answer))} "
    for item in sorted(map(_folded, expected), key=len, reverse=True):
        if f" {item} " not in rest:
            return False
        rest = rest.replace(f" {item} ", " ", 1)
    return not set(rest.split()) - {"and", "the"}


def _folded(text: str) -> str:
    """Small letters without quotes and list marks; 1,000 and 1000.0 are both 1000."""
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", str(text).casefold())
    text = re.sub(r"(\d)\.0+\b", r"\1", text)
    return " ".join(re.sub(r"[^\w.+%-]|\.(?!\d)", " ", text).split())
