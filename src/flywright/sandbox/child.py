"""Both sides of a job, each in its own child: the untrusted solution and the trusted tests.

This file is not imported by flywright: its text follows `confine.py`'s in the child. `serve` runs
the code it is sent and answers calls; it never sees a test or an expected value, so all that
hostile code can do is to return values, which is what any code may do. `judge` runs the tests,
where every function of the solution is a call over a pipe. Only plain data crosses: an object that
claims to equal everything cannot, and what arrives is built anew from exact built-in types.
"""

import builtins
import contextlib
import itertools
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

ITERATOR_ITEMS = 100_000  # an endless generator is cut here
LINE_BYTES = 16 << 20
SERIES = {kind.__name__: kind for kind in (tuple, set, frozenset, deque, dict)} | {"iterator": iter}
ATOMS = {"complex": (repr, complex), "bytes": (bytes.hex, bytes.fromhex)}  # to text and back


def encode(value: Any) -> Any:
    """JSON form of plain data; other types are tagged {"tuple": [...]}. Raises TypeError."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if type(value) in (complex, bytes):
        kind = type(value).__name__
        return {kind: ATOMS[kind][0](value)}
    if isinstance(value, Iterator):
        return {"iterator": [encode(item) for item in itertools.islice(value, ITERATOR_ITEMS)]}
    for kind in (tuple, set, frozenset, deque):
        if isinstance(value, kind):
            return {kind.__name__: [encode(item) for item in value]}
    raise TypeError(f"a {type(value).__name__} is not plain data")


def decode(value: Any) -> Any:
    """Back from `encode`: built-in types only."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag in ATOMS:
        return ATOMS[tag][1](content)
    return SERIES[tag]([decode(item) for item in content])


def send(stream: Any, message: dict[str, Any]) -> None:
    """One message, one line."""
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def receive(stream: Any) -> dict[str, Any]:
    """The next message. Raises EOFError at the end, ValueError if it is cut or no message."""
    line = stream.readline(LINE_BYTES)
    if not line:
        raise EOFError("the code ended before the tests")
    return json.loads(line)


def _define(code: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Run the code; which functions and which plain values it defined."""
    exec(compile(code, "solution.py", "exec"), namespace)
    callables, values = [], {}
    for name, value in namespace.items():
        if callable(value):
            callables.append(name)
            continue
        with contextlib.suppress(Exception):  # a module, say, stays on this side
            values[name] = encode(value)
    return {"callables": callables, "values": values}


def _call(request: dict[str, Any], namespace: dict[str, Any]) -> dict[str, Any]:
    args, kwargs = decode(request["args"]), decode(request["kwargs"])
    value = namespace[request["call"]](*args, **kwargs)
    return {"value": encode(value), "args": encode(args)}


def serve(handle: int) -> None:
    """Answer on the socket `handle`: first the code to run, then one call a line, until it ends."""
    reader, writer = os.fdopen(handle, "rb"), os.fdopen(os.dup(handle), "wb")
    namespace: dict[str, Any] = {"__name__": "solution"}
    while True:
        request = receive(reader)
        try:
            code = request.get("code")
            reply = _call(request, namespace) if code is None else _define(code, namespace)
            send(writer, reply)
        except BaseException as error:
            send(writer, {"raise": type(error).__name__, "message": str(error)[:500]})


def _raised(reply: dict[str, Any]) -> Exception:
    """What the solution raised, as the same built-in type so that a test can expect it."""
    name, text = str(reply["raise"]), str(reply["message"])
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        with contextlib.suppress(TypeError):  # a UnicodeError wants more than a message
            return kind(text)
    return Exception(f"{name}: {text}")


def _copy_back(args: tuple[Any, ...], after: list[Any]) -> None:
    """Let a test see what the solution did to the lists, dicts and sets it was given."""
    for mine, theirs in zip(args, after, strict=False):
        if isinstance(mine, list) and isinstance(theirs, list):
            mine[:] = theirs
        elif isinstance(mine, (dict, set)) and type(mine) is type(theirs):
            mine.clear()
            mine.update(theirs)


def _ask(reader: Any, writer: Any, message: dict[str, Any]) -> dict[str, Any]:
    send(writer, message)
    reply = receive(reader)
    if "raise" in reply:
        raise _raised(reply)
    return reply


def _remote(name: str, reader: Any, writer: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        request = {"call": name, "args": encode(list(args)), "kwargs": encode(kwargs)}
        reply = _ask(reader, writer, request)
        _copy_back(args, decode(reply["args"]))
        return decode(reply["value"])

    return call


def _namespace(job: dict[str, Any], reader: Any, writer: Any) -> dict[str, Any]:
    exports = _ask(reader, writer, {"code": job["code"]})
    wanted = set(job["names"])

    def taken(name: str) -> bool:
        # Without a list, everything but a new `abs` or `sorted`: tests rely on the real ones.
        own = not name.startswith("__") and not hasattr(builtins, name)
        return name in wanted if wanted else own

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
    send(verdict, {"nonce": job["nonce"], "error": error})
    os._exit(0)
