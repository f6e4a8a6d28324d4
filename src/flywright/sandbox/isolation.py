"""Which walls this machine can build: bubblewrap, else namespaces, else limits alone.

`find_isolation(policy)` tries each once a process and keeps the first that really runs.
"""

import functools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flywright.errors import FlywrightError

Policy = Literal["strict", "limited-ok"]
NOBODY = 65534
SCRATCH_BYTES = 32 << 20  # the size of the child's /tmp
PROBE_SECONDS = 20.0
SYSTEM_PATHS = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
TRUSTED_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Isolation:
    """One way to start a child. `command` stands before the interpreter.

    `binds` are the folders that `confine.py` mounts itself (none where bubblewrap does). `user` is
    whom the child becomes (0: nobody else), because process limits do not bind root.
    """

    name: Literal["bubblewrap", "namespaces", "limits"]
    command: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    user: int = 0


@functools.cache
def interpreter() -> str:
    """The real Python binary, not the link in a virtual environment."""
    return str(Path(getattr(sys, "_base_executable", "") or sys.executable).resolve())


@functools.cache
def visible_paths() -> tuple[str, ...]:
    """What a child may read: the system's libraries and the interpreter's own; nothing else."""
    library = Path(sys.base_prefix) / "lib"
    own = [Path(interpreter()), library / f"python{sys.version_info[0]}.{sys.version_info[1]}"]
    own += sorted(library.glob("libpython*.so*"))
    outside = [str(path) for path in own if not str(path).startswith("/usr/")]
    return tuple(path for path in (*SYSTEM_PATHS, *outside) if Path(path).exists())


def _bubblewrap(program: str, user: int) -> Isolation:
    walls = "--unshare-ipc --unshare-pid --unshare-net --unshare-uts"
    rights = "--cap-add CAP_SETUID --cap-add CAP_SETGID --cap-add CAP_SETPCAP"
    command = [program, *(f"{walls} {rights}".split() if user else ["--unshare-all"])]
    command += ["--die-with-parent", "--new-session", "--clearenv"]
    for path in (*visible_paths(), *DEVICES):
        for parent in reversed(Path(path).parents[:-1]):  # else root's alone, and we leave root
            command += ["--perms", "0755", "--dir", str(parent)]
        command += ["--dev-bind" if path in DEVICES else "--ro-bind", path, path]
    command += ["--perms", "1777", "--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp"]
    command += ["--remount-ro", "/", "--chdir", "/tmp", "--"]
    return Isolation("bubblewrap", tuple(command), user=user)


def _namespaces(program: str, user: int) -> Isolation:
    walls = ["--net", "--ipc", "--uts", "--mount", "--pid", "--fork", "--kill-child"]
    walls += [] if user else ["--user", "--map-root-user"]
    return Isolation("namespaces", (program, *walls), (*visible_paths(), *DEVICES), user)


def _limits() -> Isolation:
    own = [Path(path) for path in visible_paths()]
    closed = (not parent.stat().st_mode & 1 for path in own for parent in path.parents)
    drop = os.geteuid() == 0 and not any(closed)  # `nobody` could not read the library else
    return Isolation("limits", user=NOBODY if drop else 0)


def child_command(isolation: Isolation, plan: dict[str, Any], call: str) -> list[str]:
    """Walls, interpreter and the child's whole program, which ends with the call."""
    folder = Path(__file__).parent
    texts = [(folder / name).read_text(encoding="utf-8") for name in ("confine.py", "child.py")]
    own = {"binds": isolation.binds, "user": isolation.user, "scratch_bytes": SCRATCH_BYTES}
    program = "\n".join([*texts, f"confine({plan | own!r})", call])
    return [*isolation.command, interpreter(), "-I", "-S", "-c", program]


def _works(isolation: Isolation) -> bool:
    proof = "open('/dev/null', 'r+b').close(); print('inside')"
    command = child_command(isolation, {"wall_seconds": PROBE_SECONDS, "limits": {}}, proof)
    try:
        done = subprocess.run(
            command, env={}, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout == b"inside\n"


@functools.cache
def _strongest() -> Isolation:
    users = (NOBODY, 0) if os.geteuid() == 0 else (0,)
    for name, build in (("bwrap", _bubblewrap), ("unshare", _namespaces)):
        program = shutil.which(name, path=TRUSTED_PATH)
        for candidate in (build(program, user) for user in users if program):
            if _works(candidate):
                return candidate
    return _limits()


def find_isolation(policy: Policy) -> Isolation:
    """The strongest walls that work here.

    Raises FlywrightError under "strict" where only limits could be set.
    """
    found = _strongest()
    if found.name == "limits" and policy == "strict":
        raise FlywrightError(
            "sandbox: neither bubblewrap nor user namespaces work here, so untrusted code is "
            'refused; install bubblewrap, or set sandbox.policy to "limited-ok" to run it with '
            "resource limits only"
        )
    return found
