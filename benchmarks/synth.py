"""`flywright synth` beside its peers, on the fake endpoint: what a call costs, and what is re-paid.

    python benchmarks/synth.py [--part speed|calls|memory] [--only NAME ...]

Every tool answers the same rows by one call each, as many in flight, in a process of its own:
`flywright synth dialogues` with one user turn; for the peers the synth_peer_*.py beside this file,
each in its own environment (PEERS, in the folder SYNTH_VENVS). `speed` takes a short and a long
run, so that imports and start-up fall out of the cost of a call; it wants idle cores. `calls`
counts, at the endpoint, what is paid for after kill -9 in the middle, for one row more, after an
edit of the parser, and after the script has moved. `memory` runs our flow with an answerer in its
own process (synth_memory.py). Parts and tools that are left out keep the last run's figures.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from recording import RESULTS, row, write_result

import flywright
from flywright.files import write_json
from flywright.records import Conversation, Dialogue, Lineage, Prompt, read_jsonl, write_jsonl

HERE = Path(__file__).parent
VENVS = Path(os.environ.get("SYNTH_VENVS", "/tmp/venvs"))
OURS = "flywright"
PEERS = {"distilabel": "distilabel", "curator": "bespoke", "designer": "designer"}
PEERS["sdg_hub"] = "sdghub"  # the environments' names
EDITS = (  # what stands for a fix of the parser, in whichever form a tool has it
    ("reply.strip()", "reply.strip().lower()"),
    ("raw | trim }}", "raw | trim | lower }}"),
)
AT_ONCE, LATENCY = 256, "0.05:0.15"  # calls in flight; seconds that an answer takes
SHORT, LONG, COUNTED = 200, 3_000, 1_000  # rows
MOST_SECONDS, STALL_SECONDS = 240.0, 45.0  # a run; without a new call, before it counts as hung
Figures = dict[str, Any]


@contextmanager
def endpoint() -> Iterator[str]:
    """`flywright fake-llm` in its own process; its address."""
    command = [sys.executable, "-m", "flywright.cli", "fake-llm", "--port", "0"]
    command += ["--latency", LATENCY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            yield server.stdout.readline().split()[3]
        finally:
            server.terminate()


def counts(url: str, anew: bool = False) -> Figures:
    return httpx2.request("POST" if anew else "GET", f"{url}/counts", timeout=30).json()


@dataclass
class Tool:
    """One tool in a folder of its own: run(rows) is one process from start to end."""

    name: str
    folder: Path
    url: str
    edited: bool = False
    moved: bool = False
    figures: Figures = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        return self.name == OURS

    def prepare(self, rows: int) -> list[str]:
        """The files for so many rows; returns the command."""
        self.folder.mkdir(parents=True, exist_ok=True)
        texts = [f"Write two sentences about thing number {n}, for a friend." for n in range(rows)]
        data = self.folder / "rows.jsonl"
        (self.folder / "out.json").unlink(missing_ok=True)
        if self.ours:
            return self._ours(data, texts)
        lines = [json.dumps({"id": n, "prompt": text}) + "\n" for n, text in enumerate(texts)]
        data.write_text("".join(lines))
        paths = {"rows": data, "folder": self.folder / "state", "out": self.folder / "out.json"}
        job = {name: str(path) for name, path in paths.items()} | {"url": self.url}
        job |= {"concurrency": AT_ONCE, "max_tokens": 192, "temperature": 0.7}
        write_json(self.folder / "job.json", job)
        script = self.folder / ("moved.py" if self.moved else "script.py")
        text = (HERE / f"synth_peer_{self.name}.py").read_text()
        script.write_text(edited(text) if self.edited else text)
        python = VENVS / PEERS[self.name] / "bin" / "python"
        return [str(python), str(script), str(self.folder / "job.json")]

    def _ours(self, data: Path, texts: list[str]) -> list[str]:
        lineage = Lineage(source="benchmark")
        prompts = [
            Prompt(id=f"p{n}", conversation=Conversation.of(text), task="say", lineage=lineage)
            for n, text in enumerate(texts)
        ]
        write_jsonl(data, prompts)
        settings = self.folder / ("moved.toml" if self.moved else "settings.toml")
        settings.write_text(
            f'out = "{self.folder}/out.jsonl"\ndata = "{data}"\n'
            f'[generator]\nmodel = "{self.url}"\nconcurrency = {AT_ONCE}\n'
            f"[synth]\nuser_turns = 1\nverify = false\nconcurrency = {AT_ONCE}\n"
        )
        return [sys.executable, "-m", "flywright.cli", "synth", "dialogues", str(settings)]

    def environment(self) -> dict[str, str]:
        """Ours after an edit of the parser is a copy of the package with the edit in it."""
        package = Path(flywright.__file__).parent
        if self.ours and self.edited:
            copy = self.folder / "edited" / "flywright"
            shutil.copytree(package, copy, dirs_exist_ok=True)
            parser = copy / "synth" / "parse.py"
            parser.write_text(edited(parser.read_text()))
            package = copy
        own = {"PYTHONPATH": str(package.parent)} if self.ours else {}
        return {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", **own}

    def run(self, rows: int, kill_after: int = 0) -> Figures:
        """Wall and CPU seconds of the whole process tree, its memory, and what came out.

        kill_after: SIGKILL to all of them when so many calls are paid for.
        """
        command = self.prepare(rows)
        log = (self.folder / "log.txt").open("ab")
        before, started = counts(self.url), time.monotonic()
        process = subprocess.Popen(
            command, env=self.environment(), stdout=log, stderr=log, start_new_session=True,
            cwd=self.folder,
        )  # fmt: skip
        seen: Figures = {"most_mib": 0.0}
        told, last_total, looked, moved = before, before["total"], 0.0, 0.0
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            seconds = time.monotonic() - started
            if pid:
                break
            time.sleep(0.02 if kill_after else 0.1)
            if kill_after or seconds - looked > 1:
                told, looked = counts(self.url), seconds
                moved = seconds if told["total"] > last_total else moved
                last_total = told["total"]
            if kill_after and told["total"] - before["total"] >= kill_after:
                seen["killed_at"] = told["total"] - before["total"]
                kill_after = 0
                os.killpg(process.pid, signal.SIGKILL)
            elif seconds > MOST_SECONDS or seconds - moved > STALL_SECONDS:
                seen["hung_after_seconds"] = round(seconds)
                os.killpg(process.pid, signal.SIGKILL)
            elif int(seconds * 10) % 5 == 0:
                seen["most_mib"] = max(seen["most_mib"], memory_mib(process.pid))
        process.returncode = status
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it left behind
        now = counts(self.url)
        seen |= {"seconds": round(seconds, 2), "cpu_seconds": used.ru_utime + used.ru_stime}
        paid, busy = (now[key] - before[key] for key in ("total", "cpu_seconds"))
        seen |= {"calls": paid, "most_in_flight": now["most_in_flight"]}
        seen["endpoint_cpu_ms_a_call"] = round(1e3 * busy / max(paid, 1), 3)
        found = self.result()
        if found["rows"] < rows and "killed_at" not in seen:
            last = (self.folder / "log.txt").read_text(errors="replace").strip().splitlines()
            seen["last_words"] = last[-1][-200:] if last else ""
        return seen | found

    def result(self) -> Figures:
        """How many rows came out with a text, and whether all are in small letters."""
        if self.ours:
            path = self.folder / "out.jsonl"
            found = list(read_jsonl(path, Dialogue)) if path.exists() else []
            said: Figures = {"name": OURS, "texts": [one.conversation.last for one in found]}
        else:
            path = self.folder / "out.json"
            said = json.loads(path.read_text()) if path.exists() else {"texts": []}
        texts = said.pop("texts")
        lower = bool(texts) and all(text == text.lower() for text in texts)
        return {**said, "rows": len(texts), "edit_took": lower}


def edited(text: str) -> str:
    """The parser with its fix. Raises ValueError where it has none of the known forms."""
    for old, new in EDITS:
        if old in text:
            return text.replace(old, new)
    raise ValueError("no parser to edit")


def memory_mib(session: int) -> float:
    """Memory of all processes of a session, pages that they share counted once."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def speed(tool: Tool) -> Figures:
    """A short run and a long one, each from nothing; their difference is the cost of calls."""
    runs = []
    for rows in (SHORT, LONG):
        shutil.rmtree(tool.folder, ignore_errors=True)
        counts(tool.url, anew=True)
        runs.append(tool.run(rows))
    short, long = runs
    more = LONG - SHORT
    return {
        "cpu_ms_a_call": round(1e3 * (long["cpu_seconds"] - short["cpu_seconds"]) / more, 3),
        "calls_a_second": round(more / (long["seconds"] - short["seconds"]), 1),
        "most_in_flight": long["most_in_flight"],
        "endpoint_cpu_ms_a_call": long["endpoint_cpu_ms_a_call"],
        "start_cpu_seconds": round(short["cpu_seconds"], 2),
        "short": short,
        "long": long,
    }


def calls(tool: Tool) -> Figures:
    """What is paid for: kill -9 in the middle and on again, a row more, an edit, a move."""
    shutil.rmtree(tool.folder, ignore_errors=True)
    counts(tool.url, anew=True)
    killed = tool.run(COUNTED, kill_after=COUNTED // 2)
    while counts(tool.url)["in_flight"]:
        time.sleep(0.05)
    resumed = tool.run(COUNTED)
    found: Figures = {
        "paid_again_after_kill": counts(tool.url)["repeated"],
        "killed": killed,
        "resumed": resumed,
    }
    if resumed["rows"] < COUNTED:
        # what follows needs a finished run, so it starts from nothing
        shutil.rmtree(tool.folder, ignore_errors=True)
        found["from_nothing"] = tool.run(COUNTED)
    found["one_row_more"] = tool.run(COUNTED + 1)
    tool.edited = True
    found["parser_edited"] = tool.run(COUNTED + 1)
    tool.moved = True
    found["script_moved"] = tool.run(COUNTED + 1)
    return found


def memory(rows: int) -> Figures:
    """Our flow with an answerer in its process: its memory on the way to so many records."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(HERE / "synth_memory.py"), str(rows), folder]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(said.splitlines()[-1])


COMPARED = [  # what, part, path in its figures, unit, less is better
    ("CPU a call", "speed", ("cpu_ms_a_call",), "ms", True),
    ("calls a second, one process", "speed", ("calls_a_second",), "calls/s", False),
    ("CPU of a short run with start-up", "speed", ("start_cpu_seconds",), "s", True),
    ("memory at its most, all processes", "speed", ("long", "most_mib"), "MiB", True),
    ("calls paid again after kill -9", "calls", ("paid_again_after_kill",), "calls", True),
    (f"rows after the kill, of {COUNTED:,}", "calls", ("resumed", "rows"), "rows", False),
    ("calls for one row more", "calls", ("one_row_more", "calls"), "calls", True),
    ("calls after an edit of the parser", "calls", ("parser_edited", "calls"), "calls", True),
    ("calls after the script has moved", "calls", ("script_moved", "calls"), "calls", True),
]


def compared(measured: dict[str, Figures]) -> list[Figures]:
    """The rows. A ratio takes no calls, or no rows, for one."""
    rows = []
    for what, part, path, unit, less in COMPARED:
        values: dict[str, float] = {}
        for name, figures in measured.items():
            value: Any = figures.get(part, {})
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                values[name] = float(value)
        for name in [each for each in values if each != OURS and OURS in values]:
            low = 1e-3 if part == "speed" else 1.0
            ours, peer = max(values[OURS], low), max(values[name], low)
            numbers = {"ours": values[OURS], "peer": values[name]}
            ratio = {"ratio": round(peer / ours if less else ours / peer, 2), "unit": unit}
            rows.append(
                {"what": what, **numbers, "peer_name": measured[name][part]["name"], **ratio}
            )
    return rows + aims(measured.get(OURS, {}))


def aims(ours: Figures) -> list[Figures]:
    """The aims that have no peer: cost and rate of a call, memory on the way to many records."""
    rows = []
    if speed := ours.get("speed"):
        rows.append(row("CPU a call", speed["cpu_ms_a_call"], 1.5, "the aim", "ms", True))
        rows.append(row("calls a second", speed["calls_a_second"], 600, "the aim", "calls/s"))
    if calls := ours.get("calls"):
        again, flying = calls["paid_again_after_kill"], calls["killed"]["most_in_flight"]
        what = "calls paid again after kill -9"
        priced = row(what, max(again, 1), flying, "those in flight", "calls", True)
        rows.append(priced | {"ours": again})
    if memory := ours.get("memory"):
        marks = memory["mib_after_rows"]
        what, least = f"memory after {memory['rows']:,} records", marks["10000"]
        most = max(marks.values())
        rows.append(row(what, most, least, "itself after 10,000", "MiB", True))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("speed", "calls", "memory"), action="append")
    parser.add_argument("--only", nargs="*", default=[OURS, *PEERS])
    parser.add_argument("--memory-rows", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "synth-bench")
    parser.add_argument("--out", type=Path, default=RESULTS / "synth.json")
    asked = parser.parse_args()
    parts = asked.part or ["speed", "calls", "memory"]
    old = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    measured: dict[str, Figures] = old.get("measured", {})
    how = {"at_once": AT_ONCE, "latency_seconds": LATENCY, "rows": [SHORT, LONG, COUNTED]}

    def keep() -> None:
        command = "python benchmarks/synth.py"
        write_result(asked.out, command, compared(measured), how=how, measured=measured)

    with endpoint() as url:
        for part, measure in (("speed", speed), ("calls", calls)):
            for name in asked.only if part in parts else ():
                print(f"{part}: {name}", flush=True)
                figures = measure(Tool(name, asked.work / name, url))
                ended = figures.get("long") or figures.get("from_nothing") or figures["resumed"]
                measured.setdefault(name, {})[part] = {"name": ended.get("name", name), **figures}
                keep()
    if "memory" in parts:
        print("memory", flush=True)
        measured.setdefault(OURS, {})["memory"] = memory(asked.memory_rows)
        keep()


if __name__ == "__main__":
    main()
