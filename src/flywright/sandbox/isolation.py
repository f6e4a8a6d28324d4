"""Which walls this machine can build: bubblewrap, else namespaces, else limits alone.

`find_isolation(policy)` tries each once a process and keeps the first behind which code really
runs. A Keeper is the process behind them that forks the runs (keeper.py).
"""

import contextlib
import functools
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flywright.errors import FlywrightError

Policy = Literal["strict", "limited-ok"]
NOBODY = 65534
SCRATCH_BYTES = 32 << 20  # the size of a run's /tmp
VERDICT_BYTES = 64 << 10
PATIENCE_SECONDS = 20.0  # for the keeper itself, beyond what a run may take
SYSTEM_PATHS = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
TRUSTED_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
ENVIRONMENT = {"PYTHONHASHSEED": "0"}  # the same code gives the same outcome


@dataclass(frozen=True)
class Isolation:
    """One way to run code. `command` stands before the interpreter.

    `binds` are the folders that `confine.py` mounts itself (none where bubblewrap does). `user` is
    whom a run becomes (0: nobody else), because process limits do not bind root.
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
    walls = "--unshare-ipc --unshare-pid --unshare-net --unshare-uts" if user else "--unshare-all"
    walls += " --cap-add ALL"  # runs are walled in with these, and then give them up
    command = [program, *walls.split(), "--die-with-parent", "--dir", "/in", "--dir", "/tmp"]
    for path in (*visible_paths(), *DEVICES):
        for parent in reversed(Path(path).parents[:-1]):  # else root's alone, and we leave root
            command += ["--perms", "0755", "--dir", str(parent)]
        command += ["--dev-bind" if path in DEVICES else "--ro-bind", path, path]
    return Isolation("bubblewrap", (*command, "--remount-ro", "/", "--"), user=user)


def _namespaces(program: str, user: int) -> Isolation:
    walls = ["--net", "--ipc", "--uts", "--mount", "--pid", "--fork", "--kill-child"]
    walls += [] if user else ["--user", "--map-root-user"]
    return Isolation("namespaces", (program, *walls), (*visible_paths(), *DEVICES), user)


def _limits() -> Isolation:
    own = [Path(path) for path in visible_paths()]
    closed = (not parent.stat().st_mode & 1 for path in own for parent in path.parents)
    drop = os.geteuid() == 0 and not any(closed)  # `nobody` could not read the library else
    return Isolation("limits", user=NOBODY if drop else 0)


def child_command(isolation: Isolation, call: str) -> list[str]:
    """Walls, interpreter and the child's whole program, which ends with the call."""
    folder = Path(__file__).parent
    names = ("confine.py", "child.py", "keeper.py")
    texts = [(folder / name).read_text(encoding="utf-8") for name in names]
    alone = [re.sub(r"(?m)^from flywright.*\n", "", text) for text in texts]
    return [*isolation.command, interpreter(), "-sPS", "-c", "\n".join([*alone, call])]


class Keeper:
    """The process behind the walls which forks runs, one at a time; `close` it at the end."""

    def __init__(self, isolation: Isolation):
        plan = {"binds": isolation.binds, "user": isolation.user, "scratch_bytes": SCRATCH_BYTES}
        plan["fresh"] = isolation.name != "limits"
        self._control, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        null = subprocess.DEVNULL
        with theirs:
            command = child_command(isolation, f"keep({theirs.fileno()}, {plan!r})")
            own: dict[str, Any] = {"stdin": null, "stdout": null, "stderr": null, "cwd": "/"}
            own |= {"env": ENVIRONMENT, "start_new_session": True, "pass_fds": [theirs.fileno()]}
            self._process = subprocess.Popen(command, **own)
        self.owner = os.getpid()

    def run(self, job: Mapping[str, Any], seconds: float, limits: Mapping[str, int]) -> Any:
        """{"verdict": what the tests' child wrote, "seconds", "timed_out"} of one job.

        Raises OSError or ValueError where the keeper itself ended or hangs.
        """
        ours, theirs = socket.socketpair()
        plan = json.dumps({"seconds": seconds, "limits": limits}).encode()
        verdict = b""
        with ours:
            for end in (self._control, ours):
                end.settimeout(seconds + PATIENCE_SECONDS)
            with theirs:
                socket.send_fds(self._control, [plan], [theirs.fileno()])
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the tests ended
                ours.sendall(json.dumps(job).encode())
                ours.shutdown(socket.SHUT_WR)
                while len(verdict) < VERDICT_BYTES and (more := ours.recv(VERDICT_BYTES)):
                    verdict += more
        return {**json.loads(self._control.recv(VERDICT_BYTES)), "verdict": verdict}

    def close(self) -> None:
        """End the keeper, and with it all that it started."""
        self._control.close()
        self._process.kill()
        self._process.wait()

    __del__ = close


def _works(isolation: Isolation) -> bool:
    """Whether a child really runs behind these walls, tests another's function and says so."""
    keeper = Keeper(isolation)
    word = secrets.token_hex(8)
    job = {"code": "def f(): return 1", "tests": ["assert f() == 1"], "names": [], "nonce": word}
    try:
        found = keeper.run(job, PATIENCE_SECONDS, {})
        return json.loads(found["verdict"]) == {"nonce": word, "error": ""}
    except (OSError, ValueError):
        return False
    finally:
        keeper.close()


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
