"""A run killed at random moments in all its steps ends with the artifacts of an undisturbed one.

    python benchmarks/crash_drill.py [--kills 30] [--recipe tests/road/toy.toml]

The moments are drawn over the time line of the undisturbed run, every step as likely as another.
A kill is SIGKILL to the process group, a full disk (the run lies on a small tmpfs that is shrunk to
what it holds; mounting needs root), or a terminal that is closed (SIGHUP). After each, the same
command goes on. Exit status 1 if anything differs in the end, or if a full disk is not told in one
clear line with status 1. Writes benchmarks/results/crash_drill.json.
"""

import argparse
import fcntl
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from recording import RESULTS, ROOT, row, write_result

sys.path.insert(0, str(ROOT / "tests" / "road"))
from road_artifacts import ENVIRONMENT, TOY, artifacts  # pyright: ignore

HOWS = ("SIGKILL", "SIGKILL", "SIGKILL", "full disk", "closed terminal")  # three, one and one
ROOMY = "2g"
PATIENCE_SECONDS = 600.0
REPORT = "report"  # what comes after the last step


@dataclass(frozen=True)
class Moment:
    """A kill to come: `after` seconds in `step` (its number in the road), and how."""

    number: int
    step: str
    after: float
    how: str


@dataclass(frozen=True)
class Kill:
    """A kill that was: in which step the run was at work, how it ended and what it said."""

    how: str
    aimed_at: str
    at_work: str
    seconds: float
    status: int
    said: str
    fault: str


def _take_terminal() -> None:
    """The new session's terminal is stdin, and its closing kills, whoever started the drill."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Child:
    """`flywright run` as a child process, and the steps that its log tells of."""

    def __init__(self, recipe: Path, out: Path, terminal: bool = False):
        self._log = out / "log.txt"
        self._told = self._log.stat().st_size if self._log.exists() else 0
        self._rest = b""
        self.began: dict[str, float] = {}
        self.finished: dict[str, float] = {}
        self.master = -1
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the child
        command = [sys.executable, "-m", "flywright.cli", "run", str(recipe), "--out", str(out)]
        if not terminal:
            self._process = subprocess.Popen(
                command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=self._errors, start_new_session=True,
            )  # fmt: skip
            return
        self.master, slave = os.openpty()
        self._process = subprocess.Popen(
            command, env=ENVIRONMENT | {"TERM": "xterm"}, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(slave)

    def look(self) -> bool:
        """Read what is new in the log; whether the process still lives."""
        if self.master >= 0:  # a terminal that nobody reads would hold the run up
            while select.select([self.master], [], [], 0)[0]:
                with suppress(OSError):
                    if os.read(self.master, 65536):
                        continue
                break
        living = self._process.poll() is None
        if self._log.exists():
            with self._log.open("rb") as stream:
                stream.seek(self._told)
                new = stream.read()
            self._told += len(new)
            *lines, self._rest = (self._rest + new).split(b"\n")
            for line in lines:
                self._note(line.decode().split(" ", 1)[1])
        return living

    def _note(self, line: str) -> None:
        now = time.monotonic()
        if line.endswith(": begins"):
            self.began[line.removesuffix(": begins")] = now
        elif line.startswith(("+ ", "- ")):
            self.finished[line[2:].split(":")[0]] = now

    @property
    def at_work(self) -> str:
        """The step that is at work, "between" where there is none, "start" before the first."""
        unfinished = [name for name in self.began if name not in self.finished]
        if not self.began:
            return "between" if self.finished else "start"
        return unfinished[-1] if unfinished else "between"

    def wait(self) -> int:
        """The exit status; a process that does not end is killed."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while self.look() and time.monotonic() < give_up:
            time.sleep(0.002)
        self.kill(signal.SIGKILL)
        return self._process.wait()

    def kill(self, number: int) -> None:
        """A signal to the whole group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def hang_up(self) -> None:
        """Close the terminal."""
        os.close(self.master)
        self.master = -1

    def said(self) -> str:
        """Its stderr."""
        self._errors.seek(0)
        return self._errors.read().decode().strip()


class SmallDisk:
    """A tmpfs that can be filled up: shrunk to what it holds, and made roomy again."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)
        self._mount("mount", "-t", "tmpfs", "-o", f"size={ROOMY}", "tmpfs", str(folder))

    @staticmethod
    def _mount(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"crash_drill: {' '.join(command)}: {done.stderr.strip()}")

    def fill(self, pages: int) -> None:
        """Leave room for a few pages only."""
        for more in range(pages, pages + 500, 50):  # a run that writes may be faster than the df
            state = os.statvfs(self.folder)
            used = (state.f_blocks - state.f_bfree + more) * state.f_frsize
            command = ["mount", "-o", f"remount,size={used}", str(self.folder)]
            if subprocess.run(command, capture_output=True).returncode == 0:
                return
        raise SystemExit(f"crash_drill: {self.folder}: cannot be shrunk")

    def empty(self) -> None:
        """Room again."""
        self._mount("mount", "-o", f"remount,size={ROOMY}", str(self.folder))

    def remove(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", "-l", str(self.folder)], check=False)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """A tmpfs that goes in the end."""
    disk = SmallDisk(folder)
    try:
        yield disk
    finally:
        disk.remove()


def undisturbed(recipe: Path, out: Path) -> dict[str, float]:
    """Walk the road once; returns each step's seconds in order, the report's last."""
    child = Child(recipe, out)
    status, ended = child.wait(), time.monotonic()
    if status:
        raise SystemExit(f"crash_drill: the undisturbed run failed: {child.said()}")
    seconds = {name: child.finished[name] - began for name, began in child.began.items()}
    return seconds | {REPORT: ended - max(child.finished.values())}


def draw(seconds: dict[str, float], kills: int, seed: int) -> list[Moment]:
    """Moments in the order of the road: each step once before any is drawn again."""
    rng = random.Random(seed)
    names = list(seconds)
    steps: list[int] = []
    while len(steps) < kills:
        steps += rng.sample(range(len(names)), min(len(names), kills - len(steps)))
    hows = [HOWS[number % len(HOWS)] for number in range(kills)]
    rng.shuffle(hows)
    drawn = [
        Moment(number, names[number], rng.random() * seconds[names[number]], how)
        for number, how in zip(steps, hows, strict=True)
    ]
    return sorted(drawn, key=lambda moment: (moment.number, moment.after))


def due(child: Child, moment: Moment, last: str) -> float:
    """When to strike, as far as is known by now; at the latest when the step that is aimed at ends.

    A step that an earlier run finished, for no two runs are equally fast, is replaced by the first
    that this one begins.
    """
    if moment.step == REPORT:
        return child.finished.get(last, float("inf")) + moment.after
    step = moment.step
    if step in child.finished and step not in child.began:
        step = next(iter(child.began), "")
    if step not in child.began:
        return float("inf")
    return child.finished.get(step, child.began[step] + moment.after)


def strike(moment: Moment, recipe: Path, disk: SmallDisk, last: str, rng: random.Random) -> Kill:
    """Start the run, wait for the moment, kill it."""
    child = Child(recipe, disk.folder / "run", terminal=moment.how == "closed terminal")
    start = time.monotonic()
    while child.look() and time.monotonic() < due(child, moment, last):
        time.sleep(0.002)
    at_work, seconds = child.at_work, time.monotonic() - start
    if moment.how == "SIGKILL":
        child.kill(signal.SIGKILL)
    elif moment.how == "closed terminal":
        child.hang_up()
    else:
        disk.fill(rng.randint(0, 8))
    status = child.wait()
    if moment.how == "full disk":
        disk.empty()
    said = child.said()
    fault = fault_of(moment.how, status, said)
    return Kill(moment.how, moment.step, at_work, round(seconds, 2), status, said, fault)


def fault_of(how: str, status: int, said: str) -> str:
    """What is wrong with the way in which a run ended; "" = it ended as it should."""
    if status == 0:
        return "it was not hit: it had ended before"
    if how != "full disk":
        expected = -signal.SIGKILL if how == "SIGKILL" else -signal.SIGHUP
        return "" if status == expected else f"exit status {status}, not {expected}"
    if status != 1:
        return f"exit status {status}, not 1"
    one_line = said.startswith("flywright: ") and "\n" not in said
    return "" if one_line and "cannot write" in said else "not one clear line"


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """One line for each file that is not as in the undisturbed run."""
    lines = [f"{name}: missing" for name in expected.keys() - found.keys()]
    lines += [f"{name}: left over" for name in found.keys() - expected.keys()]
    shared = expected.keys() & found.keys()
    return sorted(lines + [f"{n}: differs" for n in shared if found[n] != expected[n]])


def outcome(kills: list[Kill], apart: list[str], files: int) -> list[dict[str, object]]:
    """The rows of benchmarks/results/crash_drill.json."""
    clean, count = sum(not kill.fault for kill in kills), max(1, len(kills))
    alike = files - len(apart)
    return [
        row(f"artifacts after {count} kills", alike, files, "an undisturbed run", "files alike"),
        row("kills that ended as they should", clean, count, "all kills", "kills"),
    ]


def drill(recipe: Path, kills: int, seed: int, work: Path) -> tuple[list[Kill], list[str], int]:
    """All kills, then the way to the end; what differs, and of how many files."""
    seconds = undisturbed(recipe, work / "undisturbed")
    print(f"undisturbed: {sum(seconds.values()):.0f} s in {len(seconds) - 1} steps", flush=True)
    moments, rng = draw(seconds, kills, seed), random.Random(seed)
    done: list[Kill] = []
    with small_disk(work / "disk") as disk:
        for number, moment in enumerate(moments, start=1):
            kill = strike(moment, recipe, disk, list(seconds)[-2], rng)
            while kill.status == 0 and moment.after > 0.01:  # it had ended before: aim earlier
                moment = replace(moment, after=moment.after / 2)
                kill = strike(moment, recipe, disk, list(seconds)[-2], rng)
            done.append(kill)
            said = (kill.fault + " " + kill.said[-300:]).replace(str(disk.folder), "").strip()
            line = f"{number:3}  {kill.how:<16} {kill.at_work:<16} {kill.status:>4}  {said}"
            print(line, flush=True)
        last = Child(recipe, disk.folder / "run")
        status = last.wait()
        if status:
            return done, [f"the last run failed with {status}: {last.said()}"], 1
        expected = artifacts(work / "undisturbed")
        apart = differences(artifacts(disk.folder / "run"), expected)
        if apart:
            shutil.copytree(disk.folder / "run", work / "disturbed", symlinks=True)
    return done, apart, len(expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--recipe", type=Path, default=TOY)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--work", type=Path, help="default: a temporary folder")
    parser.add_argument("--out", type=Path, default=RESULTS / "crash_drill.json")
    given = parser.parse_args()
    work = given.work or Path(tempfile.mkdtemp(prefix="crash-drill-"))
    started = time.time()
    kills, apart, files = drill(given.recipe.resolve(), given.kills, given.seed, work)
    recipe = given.recipe.resolve()
    shown = recipe.relative_to(ROOT) if recipe.is_relative_to(ROOT) else recipe
    command = f"python benchmarks/crash_drill.py --kills {given.kills} --recipe {shown}"
    write_result(
        given.out,
        command,
        outcome(kills, apart, files),
        seconds=round(time.time() - started, 1),
        differences=apart,
        kills=[asdict(kill) for kill in kills],
    )
    faults = sum(bool(kill.fault) for kill in kills)
    print("\n".join(apart[:20]))
    print(f"{files - len(apart)} of {files} files as in the undisturbed run; {faults} faulty ends")
    if apart or faults:
        print(f"both runs are kept in {work}")
        raise SystemExit(1)
    if not given.work:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
