"""Runs in the children, before any untrusted line: a bare root, a run's own walls, hard limits.

This file is not imported by flywright: its text is handed to `python -c`, in front of `child.py`
and `keeper.py`, so it may use the standard library only. `settle` runs once, where `unshare`
made the namespaces (bubblewrap builds its own root): a tmpfs with read-only binds of the system's
folders, no /proc, no /home, nothing else. `enter` runs in each fork of the keeper.
"""

import ctypes
import os
import resource
import signal
import sys
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT = 1, 2, 4, 32
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 4096, 16384, 1 << 18, 2
NEW_MOUNT, NEW_IPC, NEW_USER, NEW_PID = 1 << 17, 1 << 27, 1 << 28, 1 << 29
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
CAPABILITY_VERSION_3 = 0x20080522
INSIDE = "/in"  # where a run sees the root: code that is chrooted cannot make user namespaces


def check(result: int, what: str) -> None:
    """Raise OSError with the C library's error where a call did not return 0."""
    if result != 0:
        raise OSError(ctypes.get_errno(), f"sandbox: {what}")


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    arguments = [text.encode() for text in (source, target, kind)]
    check(LIBC.mount(*arguments, ctypes.c_ulong(flags), data.encode()), f"mount {target}")


def _bind_read_only(path: str, root: str) -> None:
    target = root + path
    if os.path.isdir(path):  # noqa: PTH112
        os.makedirs(target, exist_ok=True)  # noqa: PTH103
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    _mount(path, target, "", MS_BIND | MS_REC)
    # A remount inside a user namespace must keep the flags that the mount came with. Device files
    # stay writable, but on a mount of their own.
    kept = os.statvfs(target).f_flag & 0x40F
    read_only = 0 if path.startswith("/dev/") else MS_RDONLY
    _mount("", target, "", MS_REMOUNT | MS_BIND | MS_NOSUID | read_only | kept)


def settle(binds: list[str]) -> None:
    """What the keeper needs: the root, children that cannot read each other, orphans as its own."""
    if binds:
        _build_root(binds)
    LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _build_root(binds: list[str]) -> None:
    """Make a tmpfs the root: `binds` read-only at their own paths, two empty folders."""
    _mount("", "/", "", MS_REC | MS_PRIVATE)
    root = "/tmp"
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    for path in binds:
        _bind_read_only(path, root)
    for empty in ("/tmp", INSIDE):
        os.mkdir(root + empty)  # noqa: PTH102
    os.chdir(root)
    check(LIBC.pivot_root(b".", b"."), "pivot_root")
    check(LIBC.umount2(b".", MNT_DETACH), "umount")
    _mount("", "/", "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _own_walls(scratch_bytes: int) -> None:
    """Shared memory and a /tmp that are gone with the run (there is no network to begin with)."""
    check(LIBC.unshare(NEW_MOUNT | NEW_IPC), "unshare")
    _mount("", "/", "", MS_REC | MS_PRIVATE)
    _mount("/", INSIDE, "", MS_BIND | MS_REC)
    scratch = f"mode=1777,size={scratch_bytes},nr_inodes=10000"
    _mount("tmpfs", INSIDE + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, scratch)


def _drop_rights() -> None:
    """Give up every capability, also for programs started later."""
    for capability in range(64):
        LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    check(LIBC.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def enter(plan: dict[str, Any]) -> None:
    """Do what the plan says: {"fresh", "scratch_bytes", "user", "limits"}.

    `fresh`: this fork has a process namespace of its own and is to get what else a run owns.
    """
    sys.set_int_max_str_digits(0)
    if plan["fresh"]:
        _own_walls(plan["scratch_bytes"])
    if plan["user"]:  # process limits do not bind root
        os.setgroups([])
        os.setgid(plan["user"])
        os.setuid(plan["user"])
    if plan["fresh"]:
        check(LIBC.unshare(NEW_USER), "unshare user")  # so that processes are counted a run
        os.chroot(INSIDE)
        os.chdir("/tmp")
    _drop_rights()
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for name, value in plan["limits"].items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]  # already in force: only root may raise it
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
