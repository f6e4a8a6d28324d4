"""What counts as right: exact answers, numbers, code, and all checks together."""

import asyncio

import pytest

from flywright.errors import UserError
from flywright.judge import truth
from flywright.records import Check, Conversation, Lineage, Prompt
from flywright.sandbox import Sandbox, SandboxSettings

SANDBOX = Sandbox(SandboxSettings(policy="limited-ok"))


def prompt(*checks: Check) -> Prompt:
    return Prompt(
        id="p", conversation=Conversation.of("?"), checks=checks, lineage=Lineage(source="test")
    )


def right(answer: str, *checks: Check, which: truth.Which = "shown") -> bool:
    return asyncio.run(truth.is_right(prompt(*checks), answer, SANDBOX, which))


@pytest.mark.parametrize(
    "answer",
    [
        *("red fox", "Red fox.", "  red   fox\n", "I think so.\nred fox"),
        *("Answer: red fox", "The answer is red fox."),
    ],
)
def test_exact_takes_the_answer_alone_or_as_the_last_line(answer: str) -> None:
    assert truth.is_exact(answer, "red fox")


@pytest.mark.parametrize(
    "answer", ["red", "RED FOX", "red fox and more", "red fox\nor blue fox", "not red fox", ""]
)
def test_exact_refuses_other_case_more_words_and_other_last_lines(answer: str) -> None:
    assert not truth.is_exact(answer, "red fox")


def test_exact_case_can_be_full() -> None:
    assert truth.is_exact("paris", "Paris") and not truth.is_exact("paris", "Paris", case=True)


def test_number_is_the_last_one() -> None:
    assert truth.is_number("5 + 7 = 12", 12) and truth.is_number("It is $1,234.50.", "1234.5")
    assert truth.is_number("so -3", "-3") and truth.is_number("12.0", 12)
    assert not truth.is_number("12, not 13", 12) and not truth.is_number("twelve", 12)
    assert not truth.is_number("13", 3) and not truth.is_number("3", -3)
    with pytest.raises(UserError, match="abc"):
        truth.is_number("1", "abc")


def test_code_is_taken_from_the_block_that_defines_the_function() -> None:
    answer = "Try:\n```python\ndef f(x):\n    return x\n```\nthen\n```\nprint(f(1))\n```"
    assert truth.extract_code(answer, "f") == "def f(x):\n    return x\n"
    assert truth.extract_code(answer) == "print(f(1))\n"
    assert truth.extract_code("def f(): pass") == "def f(): pass"
    assert truth.extract_code("```python\ndef f(): pass") == "def f(): pass"


def test_code_runs_shown_or_hidden_tests() -> None:
    args = {"entry_point": "f", "tests": ["assert f(1) == 2"], "hidden_tests": ["assert f(3) == 6"]}
    check = Check(kind="code", args=args)
    fits_shown_only = "```python\ndef f(x): return x + 1\n```"
    assert right(fits_shown_only, check)
    assert not right(fits_shown_only, check, which="hidden")
    assert right("def f(x): return 2 * x", check, which="hidden")
    only_shown = Check(kind="code", args={"entry_point": "f", "tests": ["assert f(1) == 2"]})
    assert right(fits_shown_only, only_shown, which="hidden")


def test_all_checks_must_hold() -> None:
    exact = Check(kind="exact", args={"answer": "one two"})
    comma = Check(kind="punctuation:no_comma")
    assert right("one two", exact, comma)
    assert not right("well, yes\none two", exact, comma)
    assert not right("two one", exact, comma)
    assert not right("", comma)


def test_a_prompt_without_checks_or_a_sandbox_cannot_be_judged() -> None:
    with pytest.raises(UserError, match="no checks"):
        right("anything")
    code = prompt(Check(kind="code", args={"tests": ["assert 1"]}))
    with pytest.raises(UserError, match="sandbox"):
        asyncio.run(truth.is_right(code, "x = 1"))
    with pytest.raises(UserError, match="taste"):
        right("x", Check(kind="taste"))


def test_followed_tells_of_instructions_one_by_one() -> None:
    checks = (
        Check(kind="exact", args={"answer": "x"}),
        Check(kind="punctuation:no_comma"),
        Check(kind="startend:quotation"),
    )
    assert truth.followed(prompt(*checks), "no quotes") == [True, False]
