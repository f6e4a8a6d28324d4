"""What code cannot do from inside: get out, stay, take more than its share, reach another run."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from flywright.sandbox import Job, Outcome, Sandbox, SandboxSettings
from flywright.sandbox import isolation as walls

SANDBOX = Sandbox(SandboxSettings(policy="limited-ok", seconds=8))
SHORT = SANDBOX.settings.model_copy(update={"seconds": 1.5})

walled = pytest.mark.skipif(
    SANDBOX.isolation == "limits", reason="needs bubblewrap or user namespaces"
)


def run(code: str, *tests: str) -> Outcome:
    return SANDBOX.run_job(Job(code, tests))


def limits_alone(settings: SandboxSettings) -> Sandbox:
    sandbox = Sandbox(settings)
    sandbox._isolation = walls._limits()
    return sandbox


def alive(mark: str) -> bool:
    """Whether a process with this word in its arguments runs, in whatever namespace."""

    def arguments(process: Path) -> bytes:
        try:
            return (process / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            return b""

    return any(mark.encode() in arguments(process) for process in Path("/proc").glob("[0-9]*"))


DAEMON = """
import os, sys, time
def leave():
    ready, told = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(told, b'1')
            os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(60)', 'MARK'])
        os._exit(0)
    return len(os.read(ready, 1)) == 1
"""


@pytest.mark.parametrize("make", [Sandbox, limits_alone])
@pytest.mark.parametrize("end", ["True", "time.sleep(60)", "os._exit(0)"])
def test_nothing_that_code_started_outlives_its_run(make: type[Sandbox], end: str) -> None:
    mark = f"daemon-{os.getpid()}-{time.time_ns()}"
    code = DAEMON.replace("MARK", mark) + f"def end(): leave(); {end}; return True"
    outcome = make(SHORT).run_job(Job(code, ("assert end()",)))
    assert outcome.passed == (end == "True") and not alive(mark)


def test_a_busy_loop_ends_at_the_deadline() -> None:
    for make in (Sandbox, limits_alone):
        for code in ("while True: pass", "import signal\nsignal.pthread_sigmask(2, range(1, 64))"):
            job = Job(code + "\ndef f():\n    while True: pass", ("f()",))
            assert make(SHORT).run_job(job).timed_out


def test_limits_alone_still_judge_rightly() -> None:
    double, tests = "def double(x): return 2 * x", ("assert double(2) == 4",)
    assert limits_alone(SANDBOX.settings).run_job(Job(double, tests)).passed
    assert (
        not limits_alone(SANDBOX.settings).run_job(Job(double, ("assert 0 == double(1)",))).passed
    )


BOMB = """
import os, time
def bomb():
    made = 0
    try:
        for _ in range(300):
            if os.fork() == 0:
                time.sleep(5); os._exit(0)
            made += 1
    except OSError:
        time.sleep(0.5)
        return made
    return made
"""


@walled
def test_fork_bombs_are_held_by_the_process_limit_each_run_by_its_own() -> None:
    allowed = SANDBOX.settings.processes - 1

    async def both() -> list[Outcome]:
        test = f"assert bomb() == {allowed}"
        return list(await asyncio.gather(*(SANDBOX.run(BOMB, [test]) for _ in range(2))))

    assert [outcome.error for outcome in asyncio.run(both())] == ["", ""]
    threads = """
import threading
def f():
    for _ in range(300): threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
    assert "can't start new thread" in run(threads, "f()").error


def test_floods_and_great_allocations_fail_and_harm_nobody() -> None:
    flood = "def f():\n    for _ in range(2000): print('x' * 100000)\n    return 1"
    assert run(flood, "assert f() == 1").passed  # printing goes nowhere
    assert "MemoryError" in run("def f(): return len(bytearray(2 << 30))", "f()").error
    assert not run("def f(): return 'x' * (40 << 20)", "assert f()").passed
    big_file = "def f():\n    open('big', 'wb').write(b'x' * (20 << 20))"
    assert not run(big_file, "f()").passed
    endless = "raise ValueError('x' * (1 << 20))"
    assert len(run("def f(): pass", endless).error) < 1000  # so are floods of the tests


@walled
def test_the_disk_is_a_small_one_in_memory() -> None:
    fill = """
import os
def fill(size):
    made = 0
    try:
        for number in range(20_000):
            with open(f'/tmp/{number}', 'wb') as stream: stream.write(b'x' * size)
            made += 1
    except OSError:
        pass
    return made * size
"""
    assert run(fill, f"assert 0 < fill(1 << 20) <= {walls.SCRATCH_BYTES}").passed
    assert run(fill, "assert 0 < fill(1) <= 10_000").passed


@walled
def test_no_network_no_home_no_writing_outside() -> None:
    code = """
import os, socket
def connect():
    socket.create_connection(('127.0.0.1', 22), timeout=2)
def interfaces():
    return [name for _, name in socket.if_nameindex()]
def write(path):
    with open(path, 'w') as stream: stream.write('x')
    return True
def exists(path): return os.path.exists(path)
def environment(): return dict(os.environ)
def me(): return open('/etc/shadow').read()
"""
    assert "OSError" in run(code, "connect()").error or "Refused" in run(code, "connect()").error
    assert run(code, "assert interfaces() in ([], ['lo'])").passed
    assert run(code, "assert write('here.txt') and write('/tmp/here.txt')").passed
    for path in ("/etc/x", "/usr/x", "/x", "/dev/x", "/lib/x", "/in/x"):
        assert not run(code, f"write({path!r})").passed, path
    mounts = ("/", "/in", "/usr", "/lib", os.__file__)
    read_only = f"import os\nassert all(os.statvfs(path).f_flag & 1 for path in {mounts})"
    assert run(code, read_only).error == ""
    hidden = (
        "/proc/1",
        "/proc/self",
        "/home",
        "/root/.ssh",
        "/sys/kernel",
        "/run",
        "/var",
        __file__,
    )
    assert run(code, f"assert not [path for path in {hidden} if exists(path)]").passed
    assert run(code, "assert set(environment()) <= {'LC_CTYPE', 'PWD', 'PYTHONHASHSEED'}").passed
    assert not run(code, "me()").passed
    # and the tests are behind such walls, too: a model may have written them
    own = "import os\nassert not os.path.exists('/proc/1') and not os.path.exists('/home')"
    assert run(code, own).passed


@walled
def test_rights_are_gone() -> None:
    code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def done(result): return result != -1
def tries():
    mine = os.pidfd_open(os.getpid())
    return {
        'mount': done(libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None)),
        'remount': done(libc.mount(b'', b'/usr', b'', 4096 | 32, None)),
        'umount': done(libc.umount2(b'/tmp', 2)),
        'chroot': done(libc.chroot(b'/tmp')),
        'user namespace': done(libc.unshare(1 << 28)),
        'process namespace': done(libc.unshare(1 << 29)),
        'join namespace': done(libc.setns(mine, 1 << 17)),
        'host name': done(libc.sethostname(b'x', 1)),
        'root': done(libc.setuid(0)),
        'raise a limit': done(libc.prlimit(0, 6, (ctypes.c_ulong * 2)(99, 99), None)),
        'more priority': done(libc.setpriority(0, 0, -5)),
    }
"""
    assert run(code, "assert [name for name, done in tries().items() if done] == []").error == ""


@walled
def test_nobody_outside_can_be_seen_signalled_or_traced() -> None:
    code = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
def parents(): return os.getpid(), os.getppid()
def reached(act):
    found = []
    for number in range(2, 5000):
        try:
            if act(number) != -1: found.append(number)
        except OSError: pass
    return found
def signalled(): return reached(lambda number: os.kill(number, 0))
def traced(): return reached(lambda number: libc.ptrace(16, number, None, None))
def kill_all():
    os.kill(0, signal.SIGKILL)
    try: os.kill(-1, signal.SIGKILL)
    except ProcessLookupError: return True
"""
    assert run(code, "assert parents() == (1, 0)").error == ""
    assert run(code, "assert signalled() == traced() == []").error == ""
    assert run(code, "assert kill_all()").error == ""


def test_code_holds_no_descriptor_but_its_own_pipe() -> None:
    code = """
import os, stat
def held():
    found = {}
    for number in range(1024):
        try: found[number] = stat.S_IFMT(os.fstat(number).st_mode) == stat.S_IFSOCK
        except OSError: pass
    return [number for number in found if number < 3], sum(found.values()), len(found)
"""
    # reader and writer of one socket; the standard three are /dev/null
    for make in (Sandbox, limits_alone):
        job = Job(code, ("assert held() == ([0, 1, 2], 2, 5)",))
        assert make(SANDBOX.settings).run_job(job).error == ""
