"""Training speed beside TRL's trainers, and whether the losses agree: `python benchmarks/train.py`.

    python -m venv PEERS && PEERS/bin/pip install -r benchmarks/requirements.txt
    python benchmarks/train.py --peer PEERS/bin/python [--sizes 30M,120M] [--only sft,dpo,reward]

Both sides train the same Nemotron folder on the same token ids of real dialogues and pairs (in
FLYWRIGHT_DATA, default ../shared/data): bf16 products, fused AdamW, clipping, the same records a
step. TRL's settings that keep documents apart are tried once; the fastest is measured again, in
turn with ours. (More rows, more packed rows and torch.compile were slower here and are left out.)
Counted are real tokens, without padding, over the seconds of the steps after the first two. Both
sides' reference log-probabilities of DPO are computed before the clock starts (their seconds stand
in the row). `prefix` is our DPO with and without computing a pair's prompt once, on pairs that are
mostly prompt.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recording import heading

from flywright.data.batch import Sample
from flywright.data.examples import comparison_examples, dialogue_examples, ranking_examples
from flywright.data.formats import open_records
from flywright.files import write_json
from flywright.model import Decoder, RewardModel, load, save
from flywright.model.decoder import InitialTensors
from flywright.records import Comparison, Dialogue
from flywright.spec import ModelSpec
from flywright.tokenizer import Tokenizer, chat, train_tokenizer
from flywright.train.loop import fit
from flywright.train.objectives import dpo, ranking, sft
from flywright.train.passes import Passes
from flywright.train.reference import with_reference
from flywright.train.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "train.json"
DATA = Path(os.environ.get("FLYWRIGHT_DATA", ROOT.parent / "shared" / "data"))
DIALOGUES = {
    "oasst_trees": "sft_seeds/oasst/en_100_tree.jsonl.gz",
    "oasst_texts": "sft_seeds/oasst/oa_questions.jsonl.gz",
    "alpaca": "sft_seeds/dolly/dolly_hhrlhf_train_small.jsonl.gz",
}
PAIRS = {
    "hh": "preference/hh_rlhf/harmless-base/test.jsonl.gz",
    "hhh": "preference/prometheus_eval/hhh_alignment_eval.json.gz",
    "pandalm": "preference/pandalm/testset-v1.json.gz",
}
VOCABULARY, CONTEXT = 8192, 1024
SHAPES = {  # hidden, layers, heads, ffn
    "2M": (64, 4, 4, 256),
    "30M": (512, 8, 8, 2048),
    "120M": (1024, 8, 16, 4096),
}
RECORDS = 8  # a step
WARM_STEPS = 2
DECAY, BETA = 0.1, 0.1
MOSTLY_PROMPT = 0.6
Setting = dict[str, Any]


def padded(rows: int, weights: str, **more: Any) -> Setting:
    """Rows padded to the longest of them, grouped by length."""
    return {"rows": rows, "weights": weights, "order": "group_by_length", **more}


def settings_to_try(what: str) -> list[Setting]:
    """TRL's settings that keep documents apart, the fastest ones of a longer list."""
    pure = "bf16"
    tried = [padded(4, pure), padded(8, pure), padded(8, "fp32, autocast")]
    if what == "sft":
        tried += [{"rows": 1, "weights": pure, "packing": True}]
        tried += [{"rows": 8, "weights": pure, "padding_free": True}]
    return tried


@dataclass(frozen=True)
class Material:
    """What both sides train on: folders of weights by name, records, and where the work goes."""

    work: Path
    tokenizer: Tokenizer
    dialogues: list[Dialogue]
    pairs: list[Comparison]

    def model(self, size: str, what: str) -> Path:
        """The weights folder of a size, with a reward head where it is needed."""
        folder = self.work / f"{size}-{'reward' if what == 'reward' else 'policy'}"
        if not folder.exists():
            hidden, layers, heads, ffn = SHAPES[size]
            spec = ModelSpec(
                vocab_size=self.tokenizer.vocab_size, hidden_size=hidden, layers=layers,
                heads=heads, kv_heads=heads, head_dim=hidden // heads, ffn_size=ffn,
                context_length=CONTEXT,
            )  # fmt: skip
            model: Decoder | RewardModel = Decoder(spec, seed=1)
            if what == "reward":
                model = RewardModel(spec, ("helpfulness",), (1.0,))
                model.load_state_dict(InitialTensors(model, spec, seed=1))
            folder.mkdir()
            save(model, folder, chat.end_ids(self.tokenizer), pad_id=self.tokenizer.pad_id)
            self.tokenizer.save(folder)
        return folder

    def samples(self, what: str, **share: bool) -> list[Sample]:
        """Samples of an objective, in a drawn order."""
        if what == "sft":
            found = dialogue_examples(self.dialogues, self.tokenizer, CONTEXT)
        elif what == "reward":
            found = ranking_examples(self.pairs, self.tokenizer, CONTEXT)
        else:
            found = comparison_examples(
                self.pairs, self.tokenizer, CONTEXT, needs_rewards=False, **share
            )
        order = np.random.default_rng(1).permutation(len(found.samples))
        return [found.samples[place] for place in order]


class InOrder:
    """A Loader that gives samples as they stand, again and again."""

    def __init__(self, samples: Sequence[Sample]):
        self.samples = samples

    def take(self, start: int, count: int) -> list[Sample]:
        """Samples number start .. start + count - 1."""
        return [self.samples[place % len(self.samples)] for place in range(start, start + count)]

    def __len__(self) -> int:
        return len(self.samples)


def material(work: Path) -> Material:
    """Records from the data folder, and a tokenizer trained on their words."""
    dialogues = [one for f, p in DIALOGUES.items() for one in open_records(DATA / p, form=f)]
    pairs = [one for f, p in PAIRS.items() for one in open_records(DATA / p, form=f)]
    texts = [message.content for one in dialogues for message in one.conversation.messages]
    return Material(work, train_tokenizer(texts, VOCABULARY), dialogues, pairs)


def real_tokens(samples: Sequence[Sample]) -> int:
    """Tokens of all documents, a shared prompt counted in each."""
    return sum(len(document) for sample in samples for document in sample.documents)


def rows_of(what: str, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """The samples as TRL's columns; `length` is what it groups by."""
    rows = []
    for sample in samples:
        ids = [document.tolist() for document in sample.documents]
        row: dict[str, Any] = {"length": max(map(len, ids))}
        if what == "sft":
            trained = sample.masks[0].tolist()
            labels = [token if on else -100 for token, on in zip(ids[0], trained, strict=True)]
            row |= {"input_ids": ids[0], "labels": labels}
        elif what == "reward":
            row |= {"chosen_ids": ids[0], "rejected_ids": ids[1]}
        else:
            prompt = int(np.argmax(sample.masks[0]))
            row |= {"prompt_ids": ids[0][:prompt]}
            row |= {"chosen_ids": ids[0][prompt:], "rejected_ids": ids[1][prompt:]}
        rows.append(row)
    return rows


@dataclass(frozen=True)
class Run:
    """One training: a line for each step with seconds, real tokens and loss."""

    steps: list[dict[str, float]]
    reference_seconds: float

    @property
    def speed(self) -> float:
        """Real tokens a second, after the steps that warm up."""
        steps = self.steps[WARM_STEPS:]
        return sum(step["tokens"] for step in steps) / sum(step["seconds"] for step in steps)


@dataclass(frozen=True)
class Contest:
    """One objective at one size: the samples of the run and the records of a step."""

    stuff: Material
    what: str
    size: str
    samples: list[Sample]
    records: int
    precision: str = "bf16"
    micro_batch_tokens: int = 4096
    rate: float = 1e-5

    def cut(self, steps: int) -> "Contest":
        """The same for so many steps only."""
        return replace(self, samples=self.samples[: steps * self.records])

    def ours(self) -> Run:
        """Our training, through the public loop."""
        model = load(self.stuff.model(self.size, self.what), torch.float32)
        start, samples = time.perf_counter(), self.samples
        with tempfile.TemporaryDirectory(dir=self.stuff.work) as folder:
            if self.what == "dpo":
                model.to(torch.bfloat16 if self.precision == "bf16" else torch.float32)
                cache = Path(folder) / "reference.npy"
                samples = with_reference(Passes([model], self.micro_batch_tokens), samples, cache)
                seconds = time.perf_counter() - start
                model = load(self.stuff.model(self.size, self.what), torch.float32)
            settings = TrainSettings(
                learning_rate=self.rate, warmup_steps=0, weight_decay=DECAY,
                batch_size=self.records, samples=len(samples), precision=self.precision,
                checkpoint_every_steps=10**6, micro_batch_tokens=self.micro_batch_tokens,
            )  # fmt: skip
            objective = {"sft": sft, "reward": ranking}.get(self.what, lambda: dpo(BETA, 0.0))()
            fit(model, InOrder(samples), objective, settings, Path(folder))
            lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
        starts = range(0, len(samples), self.records)
        counts = [real_tokens(samples[start : start + self.records]) for start in starts]
        steps = [{**json.loads(line), "tokens": n} for line, n in zip(lines, counts, strict=True)]
        return Run(steps, seconds if self.what == "dpo" else 0.0)

    def theirs(self, python: str, setting: Setting) -> Run:
        """TRL's training in its own process."""
        with tempfile.TemporaryDirectory(dir=self.stuff.work) as folder:
            data, job, out = (Path(folder) / name for name in ("data.jsonl", "job", "out"))
            rows = rows_of(self.what, self.samples)
            data.write_text("".join(json.dumps(row) + "\n" for row in rows))
            told = {
                "what": self.what, "setting": setting, "data": str(data), "work": folder,
                "model": str(self.stuff.model(self.size, self.what)), "context": CONTEXT,
                "records_per_step": self.records, "learning_rate": self.rate, "weight_decay": DECAY,
                "beta": BETA, "threads": torch.get_num_threads(),
            }  # fmt: skip
            job.write_text(json.dumps(told))
            script = str(Path(__file__).with_name("train_peer.py"))
            command = [python, script, str(job), str(out)]
            env = os.environ | {"HF_HOME": folder, "PYTHONPATH": ""}
            done = subprocess.run(command, env=env, capture_output=True, text=True)
            if done.returncode:
                why = (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1]
                raise RuntimeError(f"{setting}: {why}")
            found = json.loads(out.read_text())
        return Run(found["steps"], found["reference_seconds"])


def name_of(setting: Setting) -> str:
    """A setting in words."""
    known = {"rows", "weights", "order"}
    more = [key if on is True else f"{key} {on}" for key, on in setting.items() if key not in known]
    kind = (
        ", ".join(more) if {"packing", "padding_free"} & {*more} else ", ".join(["padded", *more])
    )
    return f"{kind}, {setting['rows']} rows, weights {setting['weights']}"


def tried(contest: Contest, python: str, settings: list[Setting]) -> list[tuple[float, Setting]]:
    """Each setting once, the fastest first; one that does not run is told and left out."""
    found = []
    for setting in settings:
        try:
            speed = contest.theirs(python, setting).speed
        except RuntimeError as error:
            print(f"  {error}", flush=True)
            continue
        print(f"  {name_of(setting):<48} {speed:>8,.0f} tokens/s", flush=True)
        found.append((speed, setting))
    return sorted(found, key=lambda one: -one[0])


def in_turn(sides: dict[str, Callable[[], Run]], repeats: int) -> dict[str, list[Run]]:
    """Every side `repeats` times, in turn."""
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            runs[name].append(side())
    return runs


def row(what: str, size: str, runs: dict[str, list[Run]], **more: Any) -> dict[str, Any]:
    """The result's row: "ours" against the fastest of the others, by medians."""
    speed = {name: statistics.median(run.speed for run in found) for name, found in runs.items()}
    peer = max((name for name in speed if name != "ours"), key=speed.__getitem__)
    print(
        f"{what} {size}: ours {speed['ours']:,.0f}, {peer} {speed[peer]:,.0f} real tokens/s, "
        f"x{speed['ours'] / speed[peer]:.2f}",
        flush=True,
    )
    reference = {name: round(found[0].reference_seconds, 1) for name, found in runs.items()}
    return {
        "what": what,
        "size": size,
        "ours": round(speed["ours"]),
        "peer": round(speed[peer]),
        "peer_name": peer,
        "ratio": round(speed["ours"] / speed[peer], 2),
        "unit": "real tokens/s",
        **more,
        **({"reference_seconds": reference} if any(reference.values()) else {}),
        "all": {name: [round(run.speed) for run in found] for name, found in runs.items()},
    }


def beside_trl(
    stuff: Material, args: argparse.Namespace, what: str, size: str, settings: list[Setting]
) -> tuple[dict[str, Any], list[Setting]]:
    """The row of one objective and size, and TRL's settings from fast to slow."""
    records = RECORDS
    samples = stuff.samples(what)[: records * (WARM_STEPS + args.steps)]
    contest = Contest(stuff, what, size, samples, records, micro_batch_tokens=args.micro_batch)
    print(f"{what} {size}: {records} records a step, {real_tokens(samples)} tokens", flush=True)
    order = tried(contest.cut(WARM_STEPS + 1), args.peer, settings)
    sides: dict[str, Callable[[], Run]] = {"ours": contest.ours}
    for _, setting in order[:1]:
        name = f"TRL {args.trl}, {name_of(setting)}"
        sides[name] = lambda setting=setting: contest.theirs(args.peer, setting)
    found = row(
        what,
        size,
        in_turn(sides, args.repeats),
        records_per_step=records,
        tried=[{"setting": name_of(s), "tokens_per_second": round(v)} for v, s in order],
    )
    return found, [setting for _, setting in order]


def prompt_share(sample: Sample) -> float:
    """How much of a pair's tokens its prompt is, counted in both documents."""
    return 1 - sum(int(mask.sum()) for mask in sample.masks) / real_tokens([sample])


def prefix(stuff: Material, args: argparse.Namespace, size: str) -> dict[str, Any]:
    """Our DPO with and without sharing the prompt's computation, on pairs that are mostly prompt.

    Tokens are those of both documents in either form, so the ratio is that of seconds.
    """
    records = RECORDS
    forms = {
        "ours": stuff.samples("dpo", share_prefix=True),
        "without sharing": stuff.samples("dpo", share_prefix=False),
    }
    places = [n for n, one in enumerate(forms["ours"]) if prompt_share(one) >= MOSTLY_PROMPT]
    places = places[: records * (WARM_STEPS + args.steps)]
    sides = {
        name: Contest(stuff, "dpo", size, [form[n] for n in places], records).ours
        for name, form in forms.items()
    }
    share = statistics.mean(prompt_share(forms["ours"][n]) for n in places)
    return row("prefix", size, in_turn(sides, args.repeats), prompt_share=round(share, 2))


def agreement(stuff: Material, python: str, steps: int = 6) -> dict[str, Any]:
    """Losses step by step in fp32 on a small model, the same global batches in the same order."""
    found = {}
    for what in ("sft", "dpo", "reward"):
        records = 8
        samples = stuff.samples(what)[: records * steps]
        contest = Contest(stuff, what, "2M", samples, records, "fp32", rate=1e-3)
        setting = {"rows": 4, "weights": "fp32"}
        sides = contest.ours().steps, contest.theirs(python, setting).steps
        ours, theirs = ([step["loss"] for step in side] for side in sides)
        most = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
        found[what] = {"steps": steps, "ours": ours, "peer": theirs, "greatest_difference": most}
        print(f"losses of {what}: at most {most:.1e} apart in {steps} steps", flush=True)
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="python with benchmarks/requirements.txt")
    parser.add_argument("--sizes", default="30M,120M")
    parser.add_argument("--only", default="agreement,sft,dpo,reward,prefix")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="measured ones, after the warm ones")
    parser.add_argument("--micro-batch", type=int, default=4096, help="tokens, on our side")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    version = "import importlib.metadata as m; print(m.version('trl'))"
    args.trl = subprocess.check_output([args.peer, "-c", version], text=True).strip()
    only, rows = args.only.split(","), []
    with tempfile.TemporaryDirectory() as work:
        stuff = material(Path(work))
        result = {"agreement": agreement(stuff, args.peer)} if "agreement" in only else {}
        write(args, rows, result)
        for what in [name for name in ("sft", "dpo", "reward") if name in only]:
            settings = settings_to_try(what)
            for size in args.sizes.split(","):
                found, order = beside_trl(stuff, args, what, size, settings)
                rows.append(found)
                settings = order[:3]  # at the next size only what was fast at this one
                write(args, rows, result)
        for size in args.sizes.split(",") if "prefix" in only else ():
            found = prefix(stuff, args, size)
            rows += [found] if found else []
            write(args, rows, result)


def write(args: argparse.Namespace, rows: list[dict], more: dict[str, Any]) -> None:
    """What is measured so far, and what the file holds of other objectives and sizes."""
    before = json.loads(args.out.read_text()) if args.out.exists() else {}
    new = {(one["what"], one["size"]) for one in rows}
    kept = [one for one in before.get("rows", ()) if (one["what"], one["size"]) not in new]
    if "agreement" in before:
        more = {"agreement": before["agreement"], **more}
    command = f"python benchmarks/train.py --sizes {args.sizes} --only {args.only}"
    command += f" --repeats {args.repeats} --steps {args.steps}"
    write_json(args.out, {**heading(command), **more, "rows": kept + rows})


if __name__ == "__main__":
    main()
