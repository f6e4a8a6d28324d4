"""The warm parent of runs: behind the outer walls, imports done, it forks a run's two children.

`child_command` (isolation.py) hands this text to `python -c`, after those of `confine.py` and
`child.py`. The keeper never reads a job: it passes the descriptor on to the tests' child, so that
no later fork can find old tests in its memory. Each child is the first process of its own process
namespace: when it ends, all that it started ends. The clock starts with the children.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from flywright.sandbox.child import ROLES
from flywright.sandbox.confine import LIBC, NEW_PID, check, enter, settle

MESSAGE_BYTES = 1 << 16
WARM = """abc array bisect calendar cmath copy dataclasses datetime decimal enum fractions functools
hashlib heapq inspect itertools math operator queue random re statistics string textwrap traceback
typing"""


def play(plan: dict[str, Any], role: str, handles: list[int]) -> None:
    """Be one child to its end: these descriptors alone, the walls, the role."""
    try:
        os.setsid()  # a signal to its own group is to reach nobody else
        for low, high in pairwise([2, *sorted(handles), 1 << 16]):
            os.closerange(low + 1, high)
        enter(plan)
        ROLES[role](*handles)
    finally:
        os._exit(1)


def _begin(plan: dict[str, Any], own: int, role: str, handles: list[int]) -> int:
    """Start a child, as the first process of a new namespace where there are any."""
    if plan["fresh"]:
        check(LIBC.unshare(NEW_PID), "unshare pid")
    child = os.fork()
    if child == 0:
        play(plan, role, handles)
    if plan["fresh"]:
        check(LIBC.setns(own, NEW_PID), "setns")
    return child


def _in_time(child: int, control: socket.socket, seconds: float) -> bool:
    """Wait for the child's end; False if time is up first, or whoever asked is gone."""
    ended = os.pidfd_open(child)
    found, _, _ = select.select([ended, control], [], [], seconds)
    os.close(ended)
    return found == [ended]


def _end(children: list[int], walled: bool) -> None:
    """Kill the children. Without namespaces what they started comes to us, as its reaper."""
    while children:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
        strays = "" if walled else Path("/proc/thread-self/children").read_text()
        children = [int(child) for child in strays.split()]


def _run(plan: dict[str, Any], own: int, verdict: int, control: socket.socket) -> dict[str, Any]:
    """One run: the solution's child first, so that it never holds the verdict's descriptor."""
    ours, theirs = socket.socketpair()
    children: list[int] = []
    start = time.monotonic()
    try:
        with ours, theirs:
            children.append(_begin(plan, own, "serve", [theirs.fileno()]))
            children.append(_begin(plan, own, "judge", [ours.fileno(), verdict]))
        os.close(verdict)
        in_time = _in_time(children[1], control, plan["seconds"])
    finally:
        _end(children, plan["fresh"])
    return {"seconds": time.monotonic() - start, "timed_out": not in_time}


def keep(handle: int, plan: dict[str, Any]) -> None:
    """Serve runs on the socket `handle`: a plan and a descriptor come, what happened goes back."""
    settle(plan["binds"])
    for name in WARM.split():
        importlib.import_module(name)
    gc.freeze()
    control, own = socket.socket(fileno=handle), os.pidfd_open(os.getpid())
    while True:
        message, handles, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 1)
        if not message:
            os._exit(0)
        folder = "" if plan["fresh"] else tempfile.mkdtemp(prefix="sandbox-")
        if folder:  # without a private /tmp
            os.chown(folder, plan["user"] or -1, -1)
            os.chdir(folder)
        found = _run(plan | json.loads(message), own, handles[0], control)
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(BrokenPipeError):
            control.send(json.dumps(found).encode())
