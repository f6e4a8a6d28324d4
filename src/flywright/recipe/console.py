"""How a run is told: bars on a terminal, plain lines elsewhere, and a log file in both cases."""

import time
from datetime import datetime
from pathlib import Path

from rich import progress
from rich.console import Console

from flywright.files import named_disk_errors
from flywright.progress import ALARM, Announce, Tick

PLAIN_SECONDS = 15.0  # between two plain lines of one step


class Teller(Announce):
    """Draws one bar a step; writes DIR/log.txt. Use as a context manager."""

    def __init__(self, log_path: Path):
        self._path = log_path
        self._console = Console(highlight=False)
        self._progress = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description:<18}"),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("[dim]{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
            refresh_per_second=4,
        )
        self._task: progress.TaskID | None = None

    def __enter__(self) -> "Teller":
        with named_disk_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._path.open("a", encoding="utf-8")
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()
        self._stream.close()

    def say(self, line: str) -> None:
        """One line to the screen and to the log."""
        self._log(line)
        self._console.print(line, markup=False, soft_wrap=True)

    def _log(self, line: str) -> None:
        with named_disk_errors(self._path):
            stamp = datetime.now().astimezone().isoformat(timespec="seconds")
            self._stream.write(f"{stamp} {line}\n")
            self._stream.flush()

    def begin(self, name: str) -> Tick:
        """A bar for the step; without a terminal a line now and then."""
        self._log(f"{name}: begins")
        self._task = self._progress.add_task(name, total=None, note="")
        task, told = self._task, [time.monotonic()]

        def tick(done: int, total: int, note: str = "") -> None:
            if note.startswith(ALARM):
                self.say(f"! {name}: {note}")
                return
            self._progress.update(task, completed=done, total=total, note=note)
            now = time.monotonic()
            if now - told[0] >= PLAIN_SECONDS:
                told[0] = now
                self._log(f"{name}: {done}/{total} {note}")
                if not self._console.is_terminal:
                    self._console.print(f"  {name}: {done}/{total} {note}", markup=False)

        return tick

    def skipped(self, name: str) -> None:
        """Done in an earlier run."""
        self.say(f"- {name}: done before")

    def finished(self, name: str, seconds: float) -> None:
        """The bar goes, one line stays."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        self.say(f"+ {name}: {seconds:.1f} s")
