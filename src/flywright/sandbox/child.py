"""Both sides of a job, each in its own child: the untrusted solution and the trusted tests.

`child_command` (isolation.py) hands this text to `python -c`, after that of `confine.py`. `serve`
runs the code it is sent and answers calls; it never sees a test or an expected value, so all that
hostile code can do is to return values, which is what any code may do. `judge` runs the tests,
where every function of the solution is a call over a pipe. Only plain data crosses, and what
arrives is built anew from exact built-in types: an object that claims to equal everything cannot
cross. Other objects stay with the solution; tests hold a Handle, which refuses to be compared.
"""

import builtins
import contextlib
import itertools
import json
import os
import random
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

ITERATOR_ITEMS = 100_000  # an endless generator is cut here
LINE_BYTES = 16 << 20
SERIES = {kind.__name__: kind for kind in (tuple, set, frozenset, deque, dict)} | {"iterator": iter}
ATOMS = {"complex": (repr, complex), "bytes": (bytes.hex, bytes.fromhex)}  # to text and back
Other = Callable[[Any], Any]


def encode(value: Any, other: Other) -> Any:
    """JSON form of plain data; other types are tagged {"tuple": [...]}. The rest is `other`'s."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [encode(item, other) for item in value]
    if isinstance(value, dict):
        return {"dict": [[encode(k, other), encode(v, other)] for k, v in value.items()]}
    for kind, (to_text, _) in ATOMS.items():
        if isinstance(value, getattr(builtins, kind)):
            return {kind: to_text(value)}
    if isinstance(value, Iterator):
        items = itertools.islice(value, ITERATOR_ITEMS)
        return {"iterator": [encode(item, other) for item in items]}
    for kind in (tuple, set, frozenset, deque):
        if isinstance(value, kind):
            return {kind.__name__: [encode(item, other) for item in value]}
    return other(value)


def decode(value: Any, other: Callable[[str, Any], Any]) -> Any:
    """Back from `encode`: built-in types only, but for what `other` makes of its own tags."""
    if isinstance(value, list):
        return [decode(item, other) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag in ATOMS:
        return ATOMS[tag][1](content)
    if tag in SERIES:
        return SERIES[tag]([decode(item, other) for item in content])
    return other(tag, content)


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


class _Solution:
    """The code's side: its names, and the objects of which the tests hold handles."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "solution"}
        self.objects: list[Any] = []

    def _kept(self, value: Any) -> dict[str, int]:
        self.objects.append(value)
        return {"function" if callable(value) else "object": len(self.objects) - 1}

    def _known(self, tag: str, content: Any) -> Any:
        return getattr(builtins, content) if tag == "type" else self.objects[content]

    def define(self, code: str) -> dict[str, Any]:
        """Run the code; what it defined, but for modules."""
        exec(compile(code, "solution.py", "exec"), self.names)
        found = {}
        for name, value in self.names.items():
            if not name.startswith("__") and not isinstance(value, types.ModuleType):
                with contextlib.suppress(Exception):  # a list that holds itself, say
                    found[name] = encode(value, self._kept)
        return found

    def call(self, request: dict[str, Any]) -> dict[str, Any]:
        """Call an object, or a built-in by name, as the tests ask."""
        call = request["call"]
        function = getattr(builtins, call) if isinstance(call, str) else self.objects[call]
        args, kwargs = (decode(request[name], self._known) for name in ("args", "kwargs"))
        value = function(*args, **kwargs)
        return {"value": encode(value, self._kept), "args": encode(args, self._kept)}


def serve(handle: int) -> None:
    """Answer on the socket `handle`: first the code to run, then one call a line, until it ends."""
    random.seed(0)  # the same code gives the same outcome
    reader, writer = os.fdopen(handle, "rb"), os.fdopen(os.dup(handle), "wb")
    solution = _Solution()
    while True:
        request = receive(reader)
        try:
            code = request.get("code")
            send(writer, solution.call(request) if code is None else solution.define(code))
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


class _Link:
    """The tests' side of the pipe."""

    def __init__(self, handle: int):
        self.reader, self.writer = os.fdopen(handle, "rb"), os.fdopen(os.dup(handle), "wb")

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        send(self.writer, message)
        reply = receive(self.reader)
        if "raise" in reply:
            raise _raised(reply)
        return reply

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        request = {"args": encode(list(args), _given), "kwargs": encode(kwargs, _given)}
        reply = self.ask({"call": target, **request})
        _copy_back(args, self.decode(reply["args"]))
        return self.decode(reply["value"])

    def decode(self, value: Any) -> Any:
        return decode(value, lambda tag, n: (Function if tag == "function" else Handle)(self, n))


def _given(value: Any) -> dict[str, Any]:
    """What tests may hand over besides plain data: handles, and built-in types. Else TypeError."""
    if isinstance(value, Handle):
        return {"object": value._number}
    if isinstance(value, type) and getattr(builtins, value.__name__, None) is value:
        return {"type": value.__name__}
    raise TypeError(f"a {type(value).__name__} is not plain data")


class Handle:
    """Something of the solution's that is no plain data: used from afar, and never believed."""

    def __init__(self, link: _Link, number: int):
        vars(self).update(_link=link, _number=number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._link.call("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._link.call("setattr", self, name, value)

    def __bool__(self) -> bool:  # no more than what code may claim by returning True
        return self._link.call("bool", self)

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError("an object of the code is not plain data: its own word would be the test")

    __eq__ = __ne__ = _refuse
    __hash__ = _refuse


class Function(Handle):
    """A function, method or class of the solution's."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._link.call(self._number, *args, **kwargs)


def _namespace(job: dict[str, Any], link: _Link) -> dict[str, Any]:
    """What tests see of the code: the names asked for, else all but what a built-in is called."""
    found = link.ask({"code": job["code"]})
    wanted = set(job["names"]) or {name for name in found if not hasattr(builtins, name)}
    return {"__name__": "tests", **{n: link.decode(found[n]) for n in found if n in wanted}}


def judged(job: dict[str, Any], link: _Link) -> str:
    """The first failure as one line, or an empty string."""
    test = "the code"
    try:
        namespace = _namespace(job, link)
        for test in job["tests"]:
            exec(compile(test, "tests.py", "exec"), namespace)
    except BaseException as error:
        shown = test.strip().splitlines()[-1][:200] if test.strip() else ""
        return f"{type(error).__name__}: {str(error)[:300]} (in: {shown})"
    return ""


def judge(handle: int, parent: int) -> None:
    """Read the job from `parent`, run it against the solution on `handle`, write the verdict."""
    random.seed(0)
    with os.fdopen(os.dup(parent), "rb") as told, os.fdopen(parent, "wb") as verdict:
        job = json.loads(told.read())
        error = judged(job, _Link(handle))
        send(verdict, {"nonce": job["nonce"], "error": error})
    os._exit(0)


ROLES: dict[str, Callable[..., None]] = {"serve": serve, "judge": judge}
