"""The trusted side: runs the tests, where every function of the solution is a call over a pipe.

Not imported by flywright (see confine.py). The solution lives in another process and another
sandbox; only plain data comes back. The verdict goes to the parent on a private pipe, with the
nonce that the parent handed in.
"""

import builtins
import json
import os
import sys
from collections.abc import Callable
from typing import Any

# Defined by the texts that stand in front of this one in the child.
from flywright.sandbox.plain import decode, encode, receive, send


class SolutionError(Exception):
    """The solution failed in a way that no test can have asked for."""


def _raised(reply: dict[str, Any]) -> Exception:
    kind = getattr(builtins, str(reply["raise"]), None)
    text = f"{reply.get('message', '')}"
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except TypeError:
            pass
    return SolutionError(f"{reply['raise']}: {text}")


def _copy_back(args: tuple[Any, ...], after: list[Any]) -> None:
    """Let a test see what the solution did to the lists, dicts and sets it was given."""
    for mine, theirs in zip(args, after, strict=False):
        if type(mine) is not type(theirs):
            continue
        if isinstance(mine, list):
            mine[:] = theirs
        elif isinstance(mine, (dict, set)):
            mine.clear()
            mine.update(theirs)


def _ask(reader: Any, writer: Any, message: dict[str, Any]) -> dict[str, Any]:
    send(writer, message)
    try:
        reply = receive(reader)
    except (EOFError, ValueError, RecursionError) as error:
        raise SolutionError(f"the solution ended before the tests: {error}") from None
    if "raise" in reply:
        raise _raised(reply)
    return reply


def _remote(name: str, reader: Any, writer: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        given = [encode(item) for item in args]
        named = {key: encode(item) for key, item in kwargs.items()}
        reply = _ask(reader, writer, {"call": name, "args": given, "kwargs": named})
        try:
            value, after = decode(reply["value"]), [decode(item) for item in reply["args"]]
        except Exception as error:
            raise SolutionError(f"the reply is not plain data: {error!r}") from None
        _copy_back(args, after)
        return value

    return call


def _namespace(job: dict[str, Any], reader: Any, writer: Any) -> dict[str, Any]:
    exports = _ask(reader, writer, {"code": job["code"]})
    wanted = set(job["names"])

    def taken(name: str) -> bool:
        # Without a list, everything but a new `abs` or `sorted`: tests rely on the real ones.
        return name in wanted if wanted else not hasattr(builtins, name)

    names = {name: decode(value) for name, value in exports["values"].items() if taken(name)}
    for name in filter(taken, exports["callables"]):
        names[name] = _remote(name, reader, writer)
    return {"__name__": "tests", **names}


def _run(job: dict[str, Any], reader: Any, writer: Any) -> str:
    """The first failure as one line, or an empty string."""
    test = "the code"
    try:
        namespace = _namespace(job, reader, writer)
        for test in job["tests"]:
            exec(compile(test, "tests.py", "exec"), namespace)
    except BaseException as error:
        shown = test.strip().splitlines()[-1][:200] if test.strip() else ""
        return f"{type(error).__name__}: {str(error)[:300]} (in: {shown})"
    return ""


def judge(handle: int) -> None:
    """Run the job from stdin against the solution on socket `handle`, and write the verdict."""
    job = json.loads(sys.stdin.buffer.read())
    verdict = os.fdopen(os.dup(1), "wb")
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    reader, writer = os.fdopen(handle, "rb"), os.fdopen(os.dup(handle), "wb")
    error = _run(job, reader, writer)
    send(verdict, {"nonce": job["nonce"], "passed": not error, "error": error})
    verdict.close()
    os._exit(0)
