"""What the sandbox says of code: right code passes, nothing else does, and no verdict is forged."""

import asyncio
import os
import signal

import pytest

from flywright.errors import FlywrightError
from flywright.sandbox import Job, Outcome, Sandbox, SandboxSettings
from flywright.sandbox import isolation as walls
from flywright.sandbox.isolation import Isolation
from flywright.sandbox.run import _error_in

SANDBOX = Sandbox(SandboxSettings(policy="limited-ok", seconds=8))
walled = pytest.mark.skipif(
    SANDBOX.isolation == "limits", reason="needs bubblewrap or user namespaces"
)
DOUBLE = "def double(x):\n    return 2 * x\n"


def run(code: str, *tests: str, names: tuple[str, ...] = ()) -> Outcome:
    return SANDBOX.run_job(Job(code, tests, names))


def test_right_code_passes_and_wrong_code_names_the_failing_test() -> None:
    assert run(DOUBLE, "assert double(2) == 4", "assert double('a') == 'aa'").passed
    wrong = run(DOUBLE, "assert double(2) == 4", "assert double(3) == 7")
    assert not wrong.passed and "double(3) == 7" in wrong.error
    assert not run("def double(x:", "assert double(2) == 4").passed
    assert "NameError" in run("x = 1", "assert double(2) == 4").error


def test_nothing_to_verify_is_not_a_pass() -> None:
    assert not run(DOUBLE).passed


PLAIN = """None True 3 2.5 1+2j 'é\\n' b'x' [1,(2,)] {(1,2):{3}} 10**5000 float('inf') {''}"""


@pytest.mark.parametrize("value", PLAIN.split())
def test_plain_data_crosses_unchanged_both_ways(value: str) -> None:
    test = f"back = same({value})\nassert back == {value} and type(back) is type({value})"
    assert run("def same(x):\n    return x", test).passed


def test_tests_see_changes_to_their_lists_errors_and_generators() -> None:
    code = """
def push(items): items.append(1)
def boom(): raise ValueError('no')
def count(n): yield from range(n)
LIMIT = [3]
"""
    assert run(code, "items = []\npush(items)\nassert items == [1]").passed
    caught = (
        "try:\n    boom()\nexcept ValueError as e:\n    assert 'no' in str(e)\nelse:\n    raise 0"
    )
    assert run(code, caught).passed
    assert run(code, "assert list(count(3)) == [0, 1, 2]", "assert LIMIT == [3]").passed


def test_tests_use_objects_of_the_code_but_do_not_believe_them() -> None:
    code = """
class Stack:
    def __init__(self, *items): self.items, self.top = list(items), None
    def push(self, item): self.items.append(item); return self
    def __eq__(self, other): return True
    def __bool__(self): return bool(self.items)
def size(stack): return len(stack.items)
def only(items, kind): return [item for item in items if isinstance(item, kind)]
"""
    uses = "s = Stack(1)\ns.push(2).push(3)\nassert size(s) == 3 and s.items == [1, 2, 3] and s"
    assert run(code, uses, "s.top = 5\nassert s.top == 5 and not Stack()").passed
    assert run(code, "assert only([1, 'a'], int) == [1]").passed
    for believed in ("s == s", "s != 1", "4 == s", "s in [4]", "[s] == [4]", "{s}", "s < 4"):
        outcome = run(code, f"s = Stack()\nassert {believed}")
        assert "TypeError" in outcome.error, believed
    assert "function is not plain data" in run(code, "assert size(lambda: 1) == 1").error


FORGERIES = {
    "an object equal to everything": """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
def double(x): return Yes()
""",
    "a number equal to everything": """
class Yes(int):
    def __eq__(self, other): return True
def double(x): return Yes(3)
""",
    "sys.exit in the code": "import sys\nsys.exit(0)",
    "os._exit in the code": "import os\nos._exit(0)",
    "sys.exit in the function": "import sys\ndef double(x): sys.exit(0)",
    "os._exit in the function": "import os\ndef double(x): os._exit(0)",
    "walking the frames": """
import sys
def double(x):
    frame = sys._getframe()
    while frame:
        for name, value in list(frame.f_locals.items()) + list(frame.f_globals.items()):
            if isinstance(value, dict): value.update(passed=True, nonce='0')
            if isinstance(value, list): value.append('passed')
        frame = frame.f_back
    return 0
""",
    "writing a verdict to every file descriptor": """
import os
def double(x):
    for handle in range(64):
        try: os.write(handle, b'{"nonce": "0", "passed": true, "error": ""}\\n')
        except OSError: pass
    return 0
""",
    "replacing the built-ins that the test uses": """
import builtins
def abs(x): return 0
builtins.abs = abs
def double(x): return 99
""",
    "replacing assert's error": "import builtins as b\nb.AssertionError = 0\ndef double(x): pass",
    "replacing json and the pipe's functions": """
import json, sys
main = sys.modules['__main__']
json.loads = lambda *_, **__: {'nonce': '0', 'error': '', 'code': ''}
main.encode = main._run = main.judged = lambda *_, **__: ''
main.send = lambda stream, message: stream.write(b'{"nonce": "0", "error": ""}\\n') + stream.flush()
def double(x): return 0
""",
    "a verdict at exit, from a thread and from a child": """
import atexit, os, threading
def forge():
    for handle in range(64):
        try: os.write(handle, b'{"nonce": "0", "error": ""}\\n')
        except OSError: pass
atexit.register(forge)
def double(x):
    threading.Thread(target=forge).start()
    if os.fork() == 0: forge()
    os._exit(0)
""",
    "an answer that is no message": """
import os
def double(x):
    for handle in range(3, 64):
        try: os.write(handle, b'{"value": {"set": 3}, "args": {}}\\n[]\\n{"value": 4}\\n' * 9)
        except OSError: pass
    return 4.5
""",
    "searching the memory for an expected value": """
import gc
def double(x):
    texts = [text for text in gc.get_objects() if isinstance(text, dict) and 'tests' in text]
    known = [value for text in texts for value in text.values()]
    return 4 if any('double(2)' in str(value) for value in known) else 0
""",
}


@pytest.mark.parametrize("code", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_pass_is_a_failure(code: str) -> None:
    assert not run(code, "assert abs(double(2) - 4) < 1e-9 and double(2) == 4").passed


def test_names_keep_other_functions_of_the_code_out_of_the_tests() -> None:
    code = "def check(x): return True\ndef double(x): return 0"
    prelude = "def check(x):\n    return x == 4"
    assert run(code, "assert check(double(2))").passed  # the danger
    assert not run(code, prelude, "assert check(double(2))", names=("double",)).passed


def test_outcomes_keep_the_order_of_the_jobs() -> None:
    slow = "import time\ntime.sleep(0.3)\n" + DOUBLE
    jobs = [Job(slow, ("assert double(1) == 2",)), Job(DOUBLE, ("assert double(1) == 3",))]

    async def run_all() -> list[Outcome]:
        runs = (SANDBOX.run(job.code, job.tests) for job in [*jobs, jobs[0]])
        return list(await asyncio.gather(*runs))

    outcomes = asyncio.run(run_all())
    assert [outcome.passed for outcome in outcomes] == [True, False, True]


def test_strict_refuses_where_only_limits_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walls, "_strongest", lambda: Isolation("limits"))
    with pytest.raises(FlywrightError, match="bubblewrap"):
        Sandbox(SandboxSettings(policy="strict"))
    assert Sandbox(SandboxSettings(policy="limited-ok")).isolation == "limits"


def test_the_same_code_gives_the_same_outcome() -> None:
    code = "import random\ndef f(): return [random.random(), list({'a', 'b', 'c', 'd', 'e'})]"
    (seen,) = {run(code, "raise KeyError(f())").error for _ in range(3)}
    other = Sandbox(SANDBOX.settings).run_job(Job(code, ("raise KeyError(f())",)))
    assert "0." in seen and other.error == seen


@walled
def test_nothing_of_one_run_is_left_for_the_next() -> None:
    shared = "import ctypes, json, os\nshared = ctypes.CDLL(None).shmget\n"
    leave = "json.left = shared(4711, 4096, 0o1666)\nopen('/tmp/left', 'w').close()\n"
    leave = shared + leave + "def f(): return 1"
    look = """def f():
    found = shared(4711, 4096, 0o666) != -1
    return [hasattr(json, 'left'), os.path.exists('/tmp/left'), found]
"""
    one = Sandbox(SANDBOX.settings.model_copy(update={"concurrency": 1}))
    assert one.run_job(Job(leave, ("assert f() == 1",))).passed
    assert one.run_job(Job(shared + look, ("assert f() == [False] * 3",))).error == ""


def test_a_verdict_without_its_nonce_is_none() -> None:
    assert _error_in(b'{"nonce": "secret", "error": ""}\n', "secret") == ""
    for forged in (b'{"nonce": "0", "error": ""}', b'{"error": ""}', b"[]", b"", b'{"nonce": 0}'):
        assert _error_in(forged, "secret") == "the tests ended without a verdict"


def test_a_slow_machine_gets_the_time_that_the_reference_needs() -> None:
    spin = "import time\ndef double(x):\n    time.sleep(%s)\n    return 2 * x"
    short = Sandbox(SandboxSettings(policy="limited-ok", seconds=0.6))
    tests = ("assert double(2) == 4",)
    assert short.run_job(Job(spin % 0.8, tests)).timed_out
    assert short.run_job(Job(spin % 0.8, tests, reference=spin % 0.7)).passed
    fast = short.run_job(Job(spin % 0.8, tests, reference=DOUBLE))
    assert fast.timed_out and "timed out after 0.6 s" in fast.error


def test_a_killed_keeper_is_replaced_and_the_clock_runs_for_the_run_alone() -> None:
    one = Sandbox(SandboxSettings(policy="limited-ok", seconds=2, concurrency=1))
    job = Job("import time\ntime.sleep(0.6)\n" + DOUBLE, ("assert double(2) == 4",))
    assert one.run_job(job).passed
    keeper = one._idle.get_nowait()
    one._idle.put(keeper)
    os.killpg(keeper._process.pid, signal.SIGKILL)
    assert one.run_job(job).passed

    async def queued() -> list[Outcome]:
        return list(await asyncio.gather(*(one.run(job.code, job.tests) for _ in range(4))))

    assert all(outcome.passed for outcome in asyncio.run(queued()))  # the last one waited 1.8 s
