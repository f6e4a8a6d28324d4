"""Answers in several spellings: what counts as the expected one, and what does not."""

import pytest

from flywright.judge.answers import are_items, final, is_math, is_rounded


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        (r"We get $\boxed{\dfrac12}$.", "0.5", True),
        (r"\boxed{\frac{1}{2}}", r"\frac12", True),
        ("So the answer is $1,000.", "1000", True),
        ("$x = 5$", "5", True),
        (r"\boxed{12\text{ cm}^2}", "12", True),
        (r"\boxed{\text{Evelyn}}", "Evelyn", True),
        (r"\boxed{(1, 2)}", "(1,2)", True),
        (r"\boxed{90^\circ}", "90", True),
        (r"First \boxed{3}, no: \boxed{4}", "4", True),
        (r"\boxed{x^{2}+1}", "x^2+1", True),
        (r"\boxed{-\frac{3}{4}}", "-0.75", True),
        (r"\boxed{3}", "4", False),
        (r"\boxed{\frac{1}{3}}", "0.33", False),
        ("12 and then 13", "13", False),
        ("", "", False),
    ],
)
def test_mathematics_by_value_or_form(answer, expected, right):
    assert is_math(answer, expected) == right


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("Answer: 38.1%", 0.38095, True),
        ("Answer: 0.381", 0.38095, True),
        ("Answer: 38.1", 0.38095, False),
        ("Answer: 0.4", 0.38095, False),
        ("a loss of $(12.5)", -12.5, True),
        ("Answer: 12.5", -12.5, False),
        ("Answer: $1,452.4 million", 1452.4, True),
        ("Answer: 1,452", 1452.4, True),
        ("Answer: 127.4 of 500", 127.4, False),
        ("Answer: none", 0.0, False),
        ("Answer: 0", 0.0, True),
    ],
)
def test_numbers_as_rounded_as_they_are_given(answer, expected, right):
    assert is_rounded(answer, expected) == right


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("They met.\nAnswer: Oslo and Rome", ["Rome", "Oslo"], True),
        ("New Delhi, India", ["New Delhi, India"], True),
        ("Answer: 12467", ["12,467"], True),
        ("Answer: 4.0", ["4"], True),
        ('Answer: "Dr. No"', ["Dr. No"], True),
        ("Answer: Oslo, Rome, Bonn", ["Rome", "Oslo"], False),
        ("Answer: Oslo", ["Rome", "Oslo"], False),
        ("Answer: 14", ["4"], False),
        ("Answer: not Oslo", ["Oslo"], False),
    ],
)
def test_items_in_any_order_and_no_more(answer, expected, right):
    assert are_items(answer, expected) == right


def test_the_end_of_an_answer():
    assert final("The answer is 3.\nFinal answer: 4\n\n") == "4"
    assert final(r"a \boxed{\frac{a}{b}} b") == r"\frac{a}{b}"
    assert final("one\ntwo\n") == "two" and final("") == ""
