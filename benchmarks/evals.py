"""Evaluation beside lm-evaluation-harness: the same folder, files, prompts and scores.

    python benchmarks/evals.py MODEL --peer PEER/bin/python [--only mmlu] [--work DIR]

Each piece runs lm-eval (hf, float32, its sorted batches) and this project in a process of its own,
with the same number of threads, and counts the seconds without loading the model. The prompts and
answers of both are compared before a ratio is written: log-likelihoods within 1e-4, texts equal.
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
PIECES = {  # tasks, problems of each, lm-eval's batch
    "mmlu": ([f"mmlu@5:{subject}" for subject in SUBJECTS], 10, 16),
    "hellaswag": (["hellaswag@3"], 16, 16),  # as many examples as a context of 1024 holds
    "hellaswag0": (["hellaswag@0"], 40, 16),
    "gsm8k": (["gsm8k_cot"], 8, 8),
}


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
    parser.add_argument("model", type=Path)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--only", choices=PIECES)
    parser.add_argument("--side", choices=("ours", "peer"), help="one side of the piece alone")
    parser.add_argument("--work", type=Path, default=Path("runs/evals"))
    parser.add_argument("--out", type=Path, default=RESULTS / "evals.json")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    for name in [given.only] if given.only else PIECES:
        tasks, limit, batch = PIECES[name]
        if given.side == "ours":
            said = json.dumps(ours(given.model, tasks, limit))
            (given.work / f"{name}-ours.json").write_text(said)
            continue
        if given.side != "peer":
            command = [__file__, str(given.model), "--only", name, "--side", "ours"]
            subprocess.run([sys.executable, *command, "--work", str(given.work)], check=True)
        peer = Path(__file__).with_name("evals_peer.py")
        command = [given.peer, peer, given.model, DATA, given.work / f"{name}-peer.json"]
        command += ["--tasks", ",".join(tasks), "--limit", limit, "--batch", batch]
        offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
        subprocess.run(list(map(str, command)), check=True, env=offline)
    if given.side != "ours":
        write_result(given.out, "python benchmarks/evals.py MODEL --peer PYTHON", table(given.work))


def table(work: Path) -> list[dict]:
    """A row a piece: problems a second, ours and theirs."""
    rows = []
    for name, (tasks, limit, batch) in PIECES.items():
        paths = [work / f"{name}-{side}.json" for side in ("ours", "peer")]
        if not all(path.exists() for path in paths):
            continue
        mine, theirs = (json.loads(path.read_text()) for path in paths)
        seconds = [sum(side[t]["seconds"] for t in tasks) for side in (mine, theirs["tasks"])]
        found = [same(mine[t], theirs["tasks"][t]) for t in tasks]
        worst = max(one["worst"] for one in found)
        assert worst < 1e-4 and not any(one["prompts"] for one in found), found
        differ = f"{sum(one['texts'] for one in found)} of {sum(one['compared'] for one in found)}"
        what = f"{', '.join(tasks)}: {limit} problems each, lm-eval batch {batch}"
        what += f"; log-likelihoods within {worst:.1e}" if worst else f"; {differ} texts differ"
        count = limit * len(tasks)
        rates = [count / value for value in seconds]
        rows.append(row(what, rates[0], rates[1], "lm-eval hf", "problems/s"))
    return rows


if __name__ == "__main__":
    main()
