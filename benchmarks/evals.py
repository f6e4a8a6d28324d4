"""Evaluation beside lm-evaluation-harness: the same folder, files, prompts and scores.

    python benchmarks/evals.py --peer PEER/bin/python [--only mmlu] [--work DIR] [--model FOLDER]

Each piece runs lm-eval (hf, float32, its sorted batches) and this project in a process of its own,
one after the other, each on all cores. The model is loaded before the clock starts. Prompts and
answers of both are compared before a ratio is written: log-likelihoods within 1e-4, texts equal.
The model is a Nemotron of 120M random weights with a context of 4096, Nemotron-4's, so that the
published numbers of examples fit; lm-eval gets the fastest of some batch sizes (--tune finds it).
Pieces that were run before stay in DIR; the result holds all that are there.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from recording import RESULTS, row, write_result

DATA = Path(os.environ.get("FLYWRIGHT_DATA", Path(__file__).parents[2] / "shared/data"))
SUBJECTS = ("abstract_algebra", "world_religions", "conceptual_physics", "management")
PIECES = {  # tasks, problems of each, and so many to find lm-eval's batch with
    "mmlu": ([f"mmlu@5:{subject}" for subject in SUBJECTS], 8, 2),
    "hellaswag": (["hellaswag@10"], 24, 8),
    "hellaswag0": (["hellaswag@0"], 100, 16),
    "gsm8k": (["gsm8k_cot"], 16, 16),
}
BATCHES = (8, 16, 32)


def make(folder: Path) -> None:
    """The model, whose answers are never ended and hold no bytes that are no text."""
    import torch
    from serve_models import SHAPES, nemotron

    from flywright.data.rows import read_rows
    from flywright.model import Decoder, save
    from flywright.tokenizer import chat, train_tokenizer

    texts = [row["question"] for row in read_rows(DATA / "gsm8k/train.jsonl.gz")]
    tokenizer = train_tokenizer(texts, 8192)
    *shape, _ = SHAPES["120m"]
    model = Decoder(nemotron(*shape, tokenizer.vocab_size, context=4096), seed=0)
    with torch.no_grad():
        for piece in range(tokenizer.vocab_size):
            if tokenizer.piece(piece).startswith("<"):
                model.lm_head.weight[piece] = 0  # never the largest
    save(model, folder, chat.end_ids(tokenizer), pad_id=tokenizer.pad_id)
    tokenizer.save(folder)


def ours(model: Path, names: list[str], limit: int, max_tokens: int = 0) -> dict:
    """Seconds and raw answers of this project, in this process."""
    import asyncio
    import tempfile
    from dataclasses import replace

    from flywright.evals.items import Item
    from flywright.evals.run import ITEMS, evaluate
    from flywright.evals.tasks import load_prompts, task_named
    from flywright.generate.asking import Cutting
    from flywright.recipe.answerers import engine
    from flywright.records import read_jsonl

    completer, found = Cutting(engine(model)), {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            task = task_named(name)
            task = replace(task, max_tokens=max_tokens or task.max_tokens)
            prompts = load_prompts(task, DATA, limit)
            results = asyncio.run(evaluate(completer, prompts, out=Path(folder), task=task))
            seconds = time.perf_counter() - start
            items = list(read_jsonl(Path(folder) / ITEMS, Item))
        answers = {item.id: item.answer for item in items if item.answer}
        asked = [prompt.checks[0].args for prompt in prompts]
        means = {metric: value["mean"] for metric, value in results.metrics.items()}
        said = [answers.get(prompt.id, "") for prompt in prompts]
        errors = {metric: error["stderr"] for metric, error in results.stderr.items()}
        found[name] = {"seconds": seconds, "asked": asked, "answers": said, "metrics": means}
        found[name]["stderr"] = errors
    return found


def same(mine: dict, theirs: dict) -> dict:
    """{worst difference of a log-likelihood, prompts and texts that differ, texts compared}."""
    worst, texts, prompts, compared = 0.0, 0, 0, 0
    samples = {one["doc_id"]: one for one in theirs["samples"]}
    for number, (asked, answer) in enumerate(zip(mine["asked"], mine["answers"], strict=True)):
        sample = samples[number]
        given = sample["arguments"]
        given = [list(one.values()) for one in given.values()] if isinstance(given, dict) else given
        heard = [one[0] if isinstance(one, list) else one for one in sample["resps"]]
        if "asks" in asked:
            pairs = [[context, text] for context, texts_ in asked["asks"] for text in texts_]
            prompts += pairs != [list(one[:2]) for one in given]
            values = [float(one[0] if isinstance(one, list) else one) for one in heard]
            apart = (abs(a - b) for a, b in zip(json.loads(answer), values, strict=True))
            worst = max(worst, *apart)
        else:
            prompts += asked["context"] != given[0][0]
            # bytes that are no text, and the end of a turn, decoders show in their own ways
            plain = heard[0].removesuffix("<extra_id_1>")
            compared += "\ufffd" not in plain
            texts += "\ufffd" not in plain and answer != plain
    return {"worst": worst, "texts": texts, "prompts": prompts, "compared": compared}


def main() -> None:
    """Run the pieces asked for, and write what all finished ones say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--tune", action="store_true", help="find lm-eval's fastest batch")
    parser.add_argument("--only", choices=PIECES)
    parser.add_argument("--side", choices=("ours", "peer"), help="one side of the piece alone")
    parser.add_argument("--work", type=Path, default=Path("runs/evals"))
    parser.add_argument("--out", type=Path, default=RESULTS / "evals.json")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    model = given.model or given.work / "120m"
    if not model.exists():
        model.mkdir()
        make(model)
    for name in [given.only] if given.only else PIECES:
        tasks, limit, few = PIECES[name]
        if given.side == "ours":
            said = json.dumps(ours(model, tasks, few if given.tune else limit))
            (given.work / f"{name}-ours.json").write_text(said)
        elif given.tune:
            side(given, model, name, "ours")
            batches = BATCHES[name == "gsm8k" :]
            found = {b: asked(given, model, name, few, b) for b in batches}
            (given.work / f"{name}-batch.json").write_text(json.dumps(found))
        else:
            side(given, model, name, "ours")
            asked(given, model, name, limit, batch_of(given.work, name))
    if given.side != "ours" and not given.tune:
        write_result(given.out, "python benchmarks/evals.py --peer PYTHON", table(given.work))


def batch_of(work: Path, name: str) -> int:
    """lm-eval's fastest batch, as --tune found it."""
    path = work / f"{name}-batch.json"
    found = json.loads(path.read_text()) if path.exists() else {"16": 0}
    return int(min(found, key=lambda batch: found[batch]))


def side(given: argparse.Namespace, model: Path, name: str, which: str) -> None:
    """Run our side in a process of its own."""
    command = [__file__, "--model", model, "--only", name, "--side", which, "--work", given.work]
    more = ["--tune"] if given.tune else []
    subprocess.run([sys.executable, *map(str, command), *more], check=True)


def asked(given: argparse.Namespace, model: Path, name: str, limit: int, batch: int) -> float:
    """Run the peer; its seconds."""
    out = given.work / f"{name}-peer.json"
    command = [given.peer, Path(__file__).with_name("evals_peer.py"), model, DATA, out]
    command += ["--tasks", ",".join(PIECES[name][0]), "--limit", limit, "--batch", batch]
    command += ["--asked", given.work / f"{name}-ours.json"]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run(list(map(str, command)), check=True, env=offline)
    return sum(task["seconds"] for task in json.loads(out.read_text())["tasks"].values())


def table(work: Path) -> list[dict]:
    """A row a piece: problems a second, ours and theirs."""
    rows = []
    for name, (tasks, limit, _) in PIECES.items():
        paths = [work / f"{name}-{side}.json" for side in ("ours", "peer")]
        if not all(path.exists() for path in paths):
            continue
        mine, theirs = (json.loads(path.read_text()) for path in paths)
        seconds = [sum(side[t]["seconds"] for t in tasks) for side in (mine, theirs["tasks"])]
        found = [same(mine[t], theirs["tasks"][t]) for t in tasks]
        worst = max(one["worst"] for one in found)
        assert worst < 1e-4 and not any(one["prompts"] for one in found), found
        differ = f"{sum(one['texts'] for one in found)} of {sum(one['compared'] for one in found)}"
        what = f"{', '.join(tasks)}: {limit} problems each, lm-eval batch {batch_of(work, name)}"
        what += f"; log-likelihoods within {worst:.1e}" if worst else f"; {differ} texts differ"
        count = limit * len(tasks)
        rates = [count / value for value in seconds]
        rows.append(row(what, rates[0], rates[1], "lm-eval hf", "problems/s"))
    return rows


if __name__ == "__main__":
    main()
