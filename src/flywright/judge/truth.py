"""Ground truth: whether an answer meets every check of its prompt.

    await is_right(prompt, answer, sandbox)      # all checks
    followed(prompt, answer)                     # the verifiable instructions alone, one by one

Kinds of checks (records.Check): "exact", "number", "math", "rounded", "items", "code", and the ids
of judge.instructions.
"""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from flywright.errors import UserError
from flywright.judge.answers import are_items, is_math, is_rounded
from flywright.judge.instructions import CHECKERS, follows
from flywright.records import Check, Prompt
from flywright.sandbox import Outcome, Sandbox

Which = Literal["shown", "hidden"]

_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_LEAD = re.compile(r"(?i)^.*\b(?:answer|result)(?: is)?[: ]\s*")
_ANSWERS = {"math": is_math, "rounded": is_rounded, "items": are_items}
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)


def normalised(text: str, case: bool = False) -> str:
    """Blanks collapsed, one final full stop dropped, and (without `case`) the first letter small.

    Only the first letter: "The red fox" is "the red fox", but "CAT" is not "cat", since some tasks
    ask for capitals.
    """
    text = " ".join(text.split())
    text = text.removesuffix(".").rstrip()
    return text if case else text[:1].lower() + text[1:]


def is_exact(answer: str, expected: str, case: bool = False) -> bool:
    """The whole answer, its last line, or what follows "answer is" there, is the text."""
    lines = [line for line in answer.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    forms = (answer, last, _LEAD.sub("", last))
    wanted = normalised(str(expected), case)
    return any(normalised(form, case) == wanted for form in forms)


def last_number(text: str) -> Decimal | None:
    """The last number in a text; "1,234.50" counts as one. None if there is none."""
    found = _NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None


def is_number(answer: str, expected: Any) -> bool:
    """The last number in the answer equals the expected one. Raises UserError if that is none."""
    try:
        wanted = Decimal(str(expected).replace(",", "").strip())
    except InvalidOperation:
        raise UserError(f'check "number": {expected!r} is not a number') from None
    return last_number(answer) == wanted


def extract_code(answer: str, entry_point: str = "") -> str:
    """The Python in an answer: the last fenced block that defines `entry_point`, else the last.

    Without a fence it is the whole text; a fence that is never closed goes to the end.
    """
    blocks = [block for block in _FENCE.findall(answer) if block.strip()]
    if not blocks:
        return answer
    defining = [block for block in blocks if re.search(rf"\bdef {re.escape(entry_point)}\b", block)]
    return (defining if entry_point and defining else blocks)[-1]


def _tests(args: dict[str, Any], which: Which) -> Sequence[str]:
    tests = args.get("hidden_tests") if which == "hidden" else None
    tests = args.get("tests", ()) if tests is None else tests
    return [tests] if isinstance(tests, str) else tests


async def run_code(check: Check, answer: str, sandbox: Sandbox, which: Which) -> Outcome:
    """Run the answer's code against the check's tests in the sandbox.

    args: {"entry_point", "tests", "hidden_tests", "reference"}; "hidden" takes the hidden tests
    where there are any. With an entry point, tests see that function only (a forger could replace
    the others); a reference solution says what time is fair on this machine.
    """
    entry_point = check.args.get("entry_point", "")
    code = extract_code(answer, entry_point)
    names = [entry_point] if entry_point else []
    reference = check.args.get("reference", "")
    return await sandbox.run(code, _tests(check.args, which), names, reference)


async def holds(
    check: Check, answer: str, sandbox: Sandbox | None = None, which: Which = "shown"
) -> bool:
    """Whether one check holds. Raises UserError for an unknown kind, or code without a sandbox."""
    if check.kind == "exact":
        return is_exact(answer, check.args["answer"], bool(check.args.get("case")))
    if check.kind == "number":
        return is_number(answer, check.args["answer"])
    if check.kind in _ANSWERS:
        return _ANSWERS[check.kind](answer, check.args["answer"])
    if check.kind == "code":
        if sandbox is None:
            raise UserError('a check of kind "code" needs a sandbox to run in')
        return (await run_code(check, answer, sandbox, which)).passed
    return follows(check.kind, check.args, answer)


async def is_right(
    prompt: Prompt, answer: str, sandbox: Sandbox | None = None, which: Which = "shown"
) -> bool:
    """Whether all checks of the prompt hold. Raises UserError if it has none."""
    if not prompt.checks:
        raise UserError(f"prompt {prompt.id}: no checks, so nothing says what is right")
    if not answer.strip():
        return False
    for check in sorted(
        prompt.checks, key=lambda check: check.kind == "code"
    ):  # the slow ones last
        if not await holds(check, answer, sandbox, which):
            return False
    return True


def followed(prompt: Prompt, answer: str) -> list[bool]:
    """For each verifiable instruction of the prompt, in order, whether the answer follows it."""
    checks = [check for check in prompt.checks if check.kind in CHECKERS]
    return [follows(check.kind, check.args, answer) for check in checks]
