"""The tables of a run on real files, into recipes/README.md: `python benchmarks/real.py RUN`.

Reads RUN/report/stages.json and the manifests of RUN/steps, writes benchmarks/results/real.json and
the tables between the markers. No number there is typed by hand.
"""

import json
import platform
import sys
from pathlib import Path

from recording import ROOT, write_result

BEGIN, END = "<!-- real -->", "<!-- /real -->"
NAMES = {
    "arc_easy": "ARC-Easy",
    "hellaswag": "HellaSwag",
    "piqa": "PIQA",
    "accuracy": "GSM8K",
    "instruction_following": "IFEval, prompt-strict",
}


def cell(value: dict[str, float] | float) -> str:
    """A share in per cent, with half the width of its interval where it has one."""
    if not isinstance(value, dict):
        return f"{value:.1%}"
    return f"{value['mean'] * 100:.1f} ± {(value['high'] - value['low']) * 50:.1f}"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return [lines[0], "|" + "---|" * len(head), *lines[1:], ""]


def bits(facts: dict) -> list[str]:
    """Bits per byte: languages as rows, models as columns."""
    models = [name for name in next(iter(facts.values())) if name != "bytes"]
    rows = [
        [language, f"{row['bytes'] / 1000:.0f}", *(f"{row[name]:.3f}" for name in models)]
        for language, row in facts.items()
    ]
    return table(["held-out text", "kB", *(f"{name}, bits a byte" for name in models)], rows)


def pairs(facts: dict) -> list[str]:
    """Accuracy on held-out pairs, and the reward model's by set."""
    rows = [[name, cell(value), str(value["n"])] for name, value in facts.items() if "n" in value]
    for name, both in facts["by set"].items():
        for what, value in both.items():
            rows.append([f"{name}: {what.replace('_', ' ')}", cell(value), str(value["n"])])
    return table(["held-out pairs", "%", "pairs"], rows)


def benchmarks(facts: dict) -> list[str]:
    """Stages as rows; chance beside them, where it is not nought."""
    names = list(facts["base"])
    rows = [
        [stage, *(cell(found[name]) if name in found else "–" for name in names)]
        for stage, found in facts.items()
    ]
    return table(["stage", *(NAMES.get(name, name) + " %" for name in names)], rows)


def main() -> None:
    run = Path(sys.argv[1])
    read = {path: json.loads(path.read_text()) for path in run.glob("steps/*/manifest.json")}
    manifests = {manifest["name"]: manifest for manifest in read.values()}
    facts = {name: manifest["facts"] for name, manifest in manifests.items()}
    seconds = sum(manifest["seconds"] for manifest in manifests.values())
    machine = json.loads((run / "machine.json").read_text()) | {"os": platform.system()}
    left_out = {name: facts[name].get("over_length", 0) for name in ("reward", "sft", "dpo")}
    text = "\n".join(
        [
            *bits(facts["bits"]),
            *pairs(facts["pairs"]),
            *benchmarks(facts["benchmarks"]),
            f"{seconds / 60:.1f} minutes in all, {machine['threads']} of {machine['cores']} cores. "
            "Records longer than the context, left out and counted: "
            + ", ".join(f"{name} {count}" for name, count in left_out.items())
            + ". ± is half of the 95 % bootstrap interval.",
        ]
    )
    shown = ("bits", "pairs", "benchmarks", "preferences", "dialogues", "documents", "shards")
    took = {name: manifest["seconds"] for name, manifest in manifests.items()}
    told = {name: facts[name] for name in shown}
    write_result("real", "flywright run real", on=machine, seconds=took, facts=told)
    readme = ROOT / "recipes" / "README.md"
    head, rest = readme.read_text().split(BEGIN)
    readme.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")
    print(text)


if __name__ == "__main__":
    main()
