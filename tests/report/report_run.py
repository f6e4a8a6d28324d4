"""A small run directory, written file by file in the formats of HOUSE section 7."""

import json
import math
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flywright.stats import bootstrap_mean

HOSTILE = "<script>alert('x')</script> & \"$x_1^2$\" </svg> \ud800 {{ 7*7 }}"
RATES = {"teacher": 0.62, "base": 0.08, "code_sft": 0.3, "sft": 0.55, "dpo": 0.6}
REWARD = {
    "pair_accuracy": 0.86,
    "length_only": 0.6,
    "gain": {"mean": 0.26, "low": 0.1, "high": 0.4, "n": 50},
    "pairs": 50,
    "by_kind": {
        "slip": {
            "pair_accuracy": {"mean": 0.9, "low": 0.8, "high": 1.0, "n": 30},
            "length_only": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 30},
        }
    },
}
STAGES = [*RATES, "rpo1", "rpo2", "rpo3"]


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


class RunWriter:
    """Writes the steps of a run; every method leaves a finished step behind."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.clock = 1_700_000_000.0
        (folder / "steps").mkdir(parents=True)
        (folder / "settings.json").write_text('{"generator": {"name": "teacher"}}')

    def step(self, name: str, version: int = 1, **manifest: Any) -> Path:
        """A step with a manifest; returns its folder."""
        folder = self.folder / "steps" / f"{name}@{version}"
        folder.mkdir(parents=True)
        seconds = manifest.get("seconds", 12.5)
        whole = {
            "name": name,
            "version": version,
            "fingerprint": "f0",
            "inputs": {},
            "settings": {},
            "seed": 1,
            "started": _moment(self.clock),
            "finished": _moment(self.clock + seconds),
            "seconds": seconds,
            "tokens": 1000,
            "items": 10,
            "facts": {},
            **manifest,
        }
        self.clock += seconds
        (folder / "manifest.json").write_text(json.dumps(whole))
        return folder

    def lines(self, path: Path, rows: list[dict[str, Any]]) -> None:
        """A JSONL file."""
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def evaluation(
        self,
        turn: int,
        stage: str,
        rate: float,
        count: int = 40,
        code: float | None = None,
        text: str = "Question?",
        **item: Any,
    ) -> None:
        """An evaluation whose items are right at about this rate, the same items at any stage.

        `code` is the rate of the code items where it differs; `text` is every prompt's.
        """
        folder = self.step(f"{turn}-eval-{stage}", seconds=8.0)
        rows = []
        for metric in ("accuracy", "instruction_following", "code", "reward"):
            for index in range(count):
                hard = random.Random(f"{metric}{index}").random()
                right = hard < (code if metric == "code" and code is not None else rate)
                row = {
                    "id": f"{metric[:3]}{index}",
                    "task": {"accuracy": ["sort_words", "sum"][index % 2]}.get(metric, metric),
                    "split": "near",
                    "metric": metric,
                    "score": 4 * rate + hard if metric == "reward" else float(right),
                    "answer": ""  # evaluations do not repeat the answer beside its reward
                    if metric == "reward"
                    else "wrong " * (1 + index % 5) + ("right" if right else ""),
                    "truth": "right",
                }
                rows.append({**row, **item})
        self.lines(folder / "items.jsonl", rows)
        self.prompts(folder, {row["id"]: text for row in rows})
        by_metric: dict[str, list[float]] = {}
        for row in rows:
            by_metric.setdefault(row["metric"], []).append(row["score"])
        metrics = {name: bootstrap_mean(values).as_dict() for name, values in by_metric.items()}
        results = {"turn": turn, "stage": stage, "model": "m", "metrics": metrics, "by_task": {}}
        (folder / "results.json").write_text(json.dumps(results))

    def prompts(self, folder: Path, texts: dict[str, str]) -> None:
        """prompts.jsonl of an evaluation: id -> text."""
        told = {"lineage": lineage("")}
        rows = [{"id": name, "conversation": conversation(t), **told} for name, t in texts.items()]
        self.lines(folder / "prompts.jsonl", rows)

    def training(self, name: str, steps: int = 60, start: float = 4.0, **facts: Any) -> None:
        """A training step with a falling loss; preference steps have margins too."""
        folder = self.step(name, seconds=60.0, tokens=200_000, facts=facts)
        rng, rows = random.Random(name), []
        preference = "dpo" in name or "rpo" in name
        for step in range(1, steps + 1):
            row = {
                "step": step,
                "tokens": step * 512,
                "loss": start * math.exp(-step / steps) + rng.gauss(0, 0.08),
                "learning_rate": 1e-3,
                "grad_norm": 1.0,
                "seconds": 0.1,
            }
            if preference:
                row |= {"accuracy": 0.5 + step / steps / 3, "margin": step / 20}
                row |= {"chosen_logprob": -20 - step / 10}
            rows.append(row)
        self.lines(folder / "metrics.jsonl", rows)


def lineage(answer_by: str = "model", **more: Any) -> dict[str, Any]:
    """A record's lineage as JSON."""
    return {"source": "synthetic", "answer_by": answer_by, "model": "first", **more}


def conversation(*texts: str) -> dict[str, Any]:
    """A conversation as JSON, the user first."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": t} for i, t in enumerate(texts)]}


def dialogue(name: str, answer_by: str = "model", **more: Any) -> dict[str, Any]:
    """A Dialogue as JSON."""
    record = {"id": name, "conversation": conversation("Q?", "A."), "task": "open_qa"}
    return {**record, "lineage": lineage(answer_by, **more)}


def comparison(name: str, judge: str = "ground_truth", **more: Any) -> dict[str, Any]:
    """A Comparison as JSON."""
    return {
        "id": name,
        "conversation": conversation("Q?"),
        "chosen": "good",
        "rejected": "bad",
        "chosen_reward": 2.0,
        "rejected_reward": 1.0,
        "judge": judge,
        "lineage": lineage(**more),
    }


def difference(mean: float, width: float = 0.02, n: int = 120) -> dict[str, float]:
    """A paired difference as JSON."""
    return {"mean": mean, "low": mean - width, "high": mean + width, "n": n}


def verdict(turn: int) -> dict[str, Any]:
    """The facts of a turn's verdict: the mean rises, code falls."""
    some = {"mean": difference(0.05), "accuracy": difference(0.1), "code": difference(-0.03)}
    weak = {"generator": 0.4, "model": 0.6, "n": 25, "difference": difference(0.2, 0.1, 25)}
    overlap = {"prompts": 0, "items": 2, "heldout": 160, "training": 4200}
    facts = {"gain": some, "against_generator": {"mean": difference(0.01)}, "overlap": overlap}
    facts |= {"by_weakness": {"slip": weak}, "control": {"mean": difference(-0.3)}}
    return facts | ({"against_turn_before": {"mean": difference(0.0)}} if turn > 1 else {})


def write_turn(run: RunWriter, turn: int) -> None:
    """All steps of one turn: data, training and evaluations."""
    t = f"t{turn}"
    prompts = run.step(f"{turn}-prompts", items=2)
    prompt = {"id": f"{t}-prompt", "conversation": conversation("Q?"), "lineage": lineage("")}
    run.lines(prompts / "prompts.jsonl", [prompt])
    flow = {"in": 40, "ok": 26, "out": 26, "failed": 0, "dropped: does not run": 14}
    code = run.step(f"{turn}-code", facts={"flows": {"genetic": flow}, "isolation": "namespaces"})
    run.lines(code / "code.jsonl", [dialogue(f"{t}-code{i}") for i in range(8)])
    spread = {"mean": 3.1, "std": 0.4, "p10": 2.6, "p90": 3.6}
    diversity = {"distinct_1": 0.21, "distinct_2": 0.55, "reward": spread}
    made = run.step(f"{turn}-dialogues", facts={"diversity": diversity})
    reply = {"kind": "complete", "reply": {"text": "A.", "completion_tokens": 7}}
    run.lines(made / "ledger.jsonl", [reply, reply, {"kind": "score", "reply": {}}])
    rows = [dialogue(f"{t}-d{i}", parents=[f"{t}-prompt"]) for i in range(6)]
    rows.append(dialogue(f"{t}-human", "human", source="people"))
    run.lines(made / "dialogues.jsonl", rows)
    judge = {
        "llm": {"accuracy": 0.71, "decided": 100, "n": 120, "scripted": True},
        "reward": {"accuracy": 0.83, "decided": 120, "n": 120},
    }
    inputs = {f"{turn}-prompts": "f0", f"{turn}-dialogues": "f0"}
    pairs = run.step(f"{turn}-comparisons", facts={"judge": judge}, inputs=inputs)
    vote = {"judge": "llm", "preference": 1}
    rows = [
        comparison(f"{t}-c{i}", "llm", parents=[f"{t}-prompt", f"{t}-d0"], verdicts=[vote])
        for i in range(3)
    ]
    run.lines(pairs / "dpo.jsonl", rows)
    run.lines(pairs / "rpo.jsonl", [*rows, comparison(f"{t}-c9", "reward")])
    for name in ("code-sft", "sft", "dpo", "rpo1", "rpo2", "rpo3"):
        run.training(f"{turn}-{name}", start=2.0)
    run.step(f"{turn}-verdict", facts=verdict(turn))


def write_whole(run: RunWriter) -> RunWriter:
    """Write two turns of everything into an empty run."""
    notes = [
        "The first model that answers is scripted.",
        "The annotators are simulated: " + HOSTILE,
    ]
    run.step("documents", facts={"notes": notes, "dropped": {"duplicate": 3}})
    machine = {"processor": "p", "cores": "2", "threads": "2", "python": "3.11", "torch": "2.13"}
    (run.folder / "machine.json").write_text(json.dumps(machine))
    settings = {"name": HOSTILE, "seed": 7, "turns": 2, "notes": ["A note of the recipe."]}
    settings["generator"] = {"name": "teacher"}
    (run.folder / "settings.json").write_text(json.dumps(settings))
    run.step("tokenizer")
    run.step("shards")
    run.training("pretrain", 200, 8.0)
    run.training("continue", 80)
    ratings = run.step("ratings")
    rating = {"id": "r1", "conversation": conversation("Q?", "A."), "helpfulness": 3.0}
    run.lines(ratings / "ratings.jsonl", [{**rating, "lineage": lineage("human")}])
    run.training("reward", 50, 1.0, **REWARD)
    for turn in (1, 2):
        for index, stage in enumerate(STAGES):
            if turn == 1 or stage != "teacher":
                rate = RATES.get(stage, 0.6 + 0.05 * (index - 4)) + 0.04 * (turn - 1)
                run.evaluation(turn, stage, rate, code=0.35 if stage == "dpo" else None)
        write_turn(run, turn)
    llm = {"accuracy": 0.64, "decided": 41, "n": 50, "scripted": True}
    whole = {"accuracy": difference(0.6, 0.1, 50), "decided": difference(0.8, 0.1, 50)}
    run.step("judges", facts={"model": {**whole, "accuracy_when_decided": 0.75}, "generator": llm})
    return run
