"""Plain data over a pipe: the only thing that may cross between untrusted code and its tests.

Not imported by flywright: its text goes in front of `solution.py` and `tester.py`. An object that
claims to equal everything cannot cross; what arrives is built anew from exact built-in types.
"""

import collections
import collections.abc
import itertools
import json
from typing import Any

ITERATOR_ITEMS = 100_000  # an endless generator is cut here
LINE_BYTES = 16 << 20


def encode(value: Any) -> Any:
    """JSON form of plain data; other types are tagged {"tuple": [...]}. Raises TypeError."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [encode(item) for item in value]
    for kind in (tuple, set, frozenset, collections.deque):
        if isinstance(value, kind):
            return {kind.__name__: [encode(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if type(value) is complex:
        return {"complex": [value.real, value.imag]}
    if type(value) in (bytes, bytearray):
        return {type(value).__name__: value.hex()}
    if isinstance(value, collections.abc.Iterator):
        items = itertools.islice(value, ITERATOR_ITEMS)
        return {"iterator": [encode(item) for item in items]}
    raise TypeError(f"a {type(value).__name__} is not plain data")


def decode(value: Any) -> Any:
    """Back from `encode`: built-in types only."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag == "dict":
        return {decode(key): decode(item) for key, item in content}
    if tag == "complex":
        return complex(*content)
    if tag in ("bytes", "bytearray"):
        return {"bytes": bytes, "bytearray": bytearray}[tag].fromhex(content)
    makers = {
        "tuple": tuple,
        "set": set,
        "frozenset": frozenset,
        "deque": collections.deque,
        "iterator": iter,
    }
    return makers[tag]([decode(item) for item in content])


def send(stream: Any, message: dict[str, Any]) -> None:
    """One message, one line."""
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def receive(stream: Any) -> dict[str, Any]:
    """The next message. Raises EOFError at the end, ValueError for a line that is too long."""
    line = stream.readline(LINE_BYTES)
    if not line:
        raise EOFError("the other side ended")
    if not line.endswith(b"\n"):
        raise ValueError("a message is too long")
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("a message is not an object")
    return message
