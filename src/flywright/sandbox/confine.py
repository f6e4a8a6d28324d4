"""Runs inside the child, before any untrusted line: a bare root, no rights, hard limits.

This file is not imported by flywright: its text is handed to `python -I -S -c`, in front of
`child.py`, so it may use the standard library only. `build_root` runs where `unshare` made the
namespaces (bubblewrap builds its own root): a tmpfs with read-only binds of the system's folders,
a small writable /tmp, no /proc, no /home, nothing else. Afterwards the process gives up every
capability for good, and a first process stays behind which ends the whole namespace when the time
is up, even if whoever started it was killed.
"""

import ctypes
import os
import resource
import signal
import sys
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT = 1, 2, 4, 32
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 4096, 16384, 1 << 18, 2
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 24, 38
CAPABILITY_VERSION_3 = 0x20080522


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"sandbox: {what}")


def _mount(libc: Any, source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    arguments = [text.encode() for text in (source, target, kind)]
    _check(libc.mount(*arguments, ctypes.c_ulong(flags), data.encode()), f"mount {target}")


def _bind_read_only(libc: Any, path: str, root: str) -> None:
    target = root + path
    if os.path.isdir(path):  # noqa: PTH112
        os.makedirs(target, exist_ok=True)  # noqa: PTH103
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    _mount(libc, path, target, "", MS_BIND | MS_REC)
    # A remount inside a user namespace must keep the flags that the mount came with. Device files
    # stay writable, but on a mount of their own.
    kept = os.statvfs(target).f_flag & 0x40F
    read_only = 0 if path.startswith("/dev/") else MS_RDONLY
    _mount(libc, "", target, "", MS_REMOUNT | MS_BIND | MS_NOSUID | read_only | kept)


def build_root(binds: list[str], scratch_bytes: int) -> None:
    """Make a tmpfs the root: `binds` read-only at their own paths, /tmp writable; move to /tmp."""
    libc = ctypes.CDLL(None, use_errno=True)
    _mount(libc, "", "/", "", MS_REC | MS_PRIVATE)
    root = "/tmp"
    _mount(libc, "tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    for path in binds:
        _bind_read_only(libc, path, root)
    os.mkdir(root + "/tmp")  # noqa: PTH102
    scratch = f"mode=1777,size={scratch_bytes}"
    _mount(libc, "tmpfs", root + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, scratch)
    os.chdir(root)
    _check(libc.pivot_root(b".", b"."), "pivot_root")
    _check(libc.umount2(b".", MNT_DETACH), "umount")
    _mount(libc, "", "/", "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir("/tmp")


def drop_rights(user: int) -> None:
    """Become `user` (0: stay) and give up every capability, also for programs started later."""
    libc = ctypes.CDLL(None, use_errno=True)
    if user:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    _check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def stay_behind(wall_seconds: float) -> None:
    """Fork; the parent waits as the namespace's first process and dies with it at the deadline."""
    child = os.fork()
    if child == 0:
        return
    drop_rights(0)  # its user stays: a change would undo "die with who started you"
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # untrusted code cannot trace it
    signal.signal(signal.SIGALRM, lambda *_: os._exit(124))
    signal.setitimer(signal.ITIMER_REAL, wall_seconds)
    os.closerange(0, 64)
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def confine(plan: dict[str, Any]) -> None:
    """Do what the plan says: {"binds", "scratch_bytes", "wall_seconds", "user", "limits"}."""
    sys.set_int_max_str_digits(0)
    if plan["binds"]:
        build_root(plan["binds"], plan["scratch_bytes"])
        stay_behind(plan["wall_seconds"])
    drop_rights(plan["user"])
    for name, value in plan["limits"].items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]  # already in force: only root may raise it
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
