"""The untrusted side: runs the code it is sent and answers calls with plain data.

Not imported by flywright (see confine.py). It never sees a test or an expected value, so all that
hostile code can do here is to return values, which is what any code may do.
"""

import os
from typing import Any

# Defined by the texts that stand in front of this one in the child.
from flywright.sandbox.plain import decode, encode, receive, send


def _failure(error: BaseException) -> dict[str, Any]:
    return {"raise": type(error).__name__, "message": str(error)[:500]}


def _call(function: Any, request: dict[str, Any]) -> dict[str, Any]:
    args = [decode(item) for item in request["args"]]
    kwargs = {key: decode(item) for key, item in request["kwargs"].items()}
    value = function(*args, **kwargs)
    return {"value": encode(value), "args": [encode(item) for item in args]}


def _exports(namespace: dict[str, Any]) -> dict[str, Any]:
    callables, values = [], {}
    for name, value in namespace.items():
        if name.startswith("__"):
            continue
        if callable(value):
            callables.append(name)
            continue
        try:
            values[name] = encode(value)
        except Exception:
            continue
    return {"callables": callables, "values": values}


def serve(handle: int) -> None:
    """Answer on the socket `handle`: first the code to run, then one call a line, until it ends."""
    reader, writer = os.fdopen(handle, "rb"), os.fdopen(os.dup(handle), "wb")
    namespace: dict[str, Any] = {"__name__": "solution"}
    try:
        exec(compile(receive(reader)["code"], "solution.py", "exec"), namespace)
        send(writer, _exports(namespace))
    except BaseException as error:
        send(writer, _failure(error))
        return
    while True:
        try:
            request = receive(reader)
        except EOFError:
            return
        try:
            send(writer, _call(namespace[request["call"]], request))
        except BaseException as error:
            send(writer, _failure(error))
