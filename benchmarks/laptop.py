"""The tables of the laptop recipe, as Markdown: `python benchmarks/laptop.py RUN [RUN_2 RUN_3 ..]`.

Reads RUN/report/{stages,facts}.json and writes benchmarks/results/laptop.json, the stage table of
the first run between the markers in README.md and recipes/README.md, and what every run claims
between the markers of its own in recipes/README.md. No number there is typed by hand.
"""

import json
import platform
import sys
from pathlib import Path

from recording import ROOT, write_result

METRICS = ("mean", "accuracy", "instruction_following", "code", "reward")
CLAIMS = {
    "gain": "last stage against General SFT",
    "against_generator": "last stage against the teacher",
    "against_turn_before": "last stage against turn 1's",
}


def cell(value: dict[str, float], name: str) -> str:
    """A mean with half the width of its interval; shares in per cent."""
    scale, digits = (1, 2) if name == "reward" else (100, 1)
    half = (value["high"] - value["low"]) / 2
    return f"{value['mean'] * scale:.{digits}f} ± {half * scale:.{digits}f}"


def stage_table(stages: list[dict], facts: dict, machine: dict) -> str:
    """The stage table and one line of facts."""
    lines = ["| turn | stage | items | mean % | accuracy % | instructions % | code % | reward |"]
    lines.append("|" + "---|" * 8)
    for row in stages:
        cells = [cell(row["metrics"][name], name) for name in METRICS]
        start = f"| {row['turn']} | {row['stage']} | {row['metrics']['mean']['n']} | "
        lines.append(start + " | ".join(cells) + " |")
    seconds = sum(step["seconds"] for step in facts["steps"].values())
    lines += [
        "",
        f"{seconds / 60:.1f} minutes in all, on {machine['threads']} of {machine['cores']} cores, "
        f"which other work shared. Synthetic share of the SFT and preference records: "
        f"{facts['synthetic_share']:.1%}. Mean = of accuracy, instructions and code. The same "
        "held-out prompts in every row of as many items; ± is half of the 95 % bootstrap interval.",
    ]
    return "\n".join(lines)


def change(value: dict[str, float]) -> str:
    """A paired difference in points with its interval."""
    return f"{value['mean']:+.1%} ({value['low']:+.1%} to {value['high']:+.1%})".replace("%", "")


def claims(runs: list[Path]) -> str:
    """What each run, by its seed, says of the turns, the teacher and the reward model."""
    seeds = [json.loads((run / "settings.json").read_text())["seed"] for run in runs]
    named = " | ".join(f"seed {seed}" for seed in seeds)
    lines = [f"| in points (95 % interval, paired) | {named} |", "|" + "---|" * (1 + len(runs))]
    for turn in (1, 2):
        found = [_facts(run, f"{turn}-verdict") for run in runs]
        for key, words in CLAIMS.items():
            for metric in ("mean", "accuracy", "instruction_following", "code"):
                cells = [change(one[key][metric]) for one in found if key in one]
                if len(cells) == len(runs):
                    lines.append(f"| turn {turn}: {words}, {metric} | " + " | ".join(cells) + " |")
        for kind in sorted({kind for one in found for kind in one["by_weakness"]}):
            cells = [_by_kind(one["by_weakness"].get(kind)) for one in found]
            lines.append(f"| turn {turn}: teacher's error {kind} | " + " | ".join(cells) + " |")
    reward = [_facts(run, "reward") for run in runs]
    pairs = [f"{r['pair_accuracy']:.1%} ({r['pairs']} pairs)" for r in reward]
    lines.append("| reward model, held-out pairs | " + " | ".join(pairs) + " |")
    lengths = [f"{r['length_only']:.1%}" for r in reward]
    lines.append("| length-only rule | " + " | ".join(lengths) + " |")
    for kind in sorted({kind for one in reward for kind in one["by_kind"]}):
        cells = [_defect(one["by_kind"].get(kind)) for one in reward]
        lines.append(f"| reward model, worse answer {kind} | " + " | ".join(cells) + " |")
    for judge in ("model", "generator"):
        cells = [_judge(_facts(run, "judges")[judge]) for run in runs]
        name = "last model" if judge == "model" else "teacher (scripted)"
        lines.append(f"| {name} as judge, both orders | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _by_kind(value: dict | None) -> str:
    if not value:
        return "-"
    return f"{value['first']:.1%} -> {value['second']:.1%} (n {value['n']})"


def _defect(value: dict | None) -> str:
    if not value:
        return "-"
    accuracy, length = value["pair_accuracy"], value["length_only"]
    return f"{accuracy['mean']:.0%} (length {length['mean']:.0%}, n {accuracy['n']})"


def _judge(value: dict) -> str:
    return f"{value['accuracy']['mean']:.1%} right, {value['decided']['mean']:.1%} decided"


def _facts(run: Path, step: str) -> dict:
    manifest = next(run.glob(f"steps/{step}@*/manifest.json"))
    return json.loads(manifest.read_text())["facts"]


def _stages(run: Path) -> list[dict]:
    return json.loads((run / "report" / "stages.json").read_text())


def insert(path: Path, name: str, text: str) -> None:
    """Replace what stands between the markers of that name."""
    head, rest = path.read_text().split(f"<!-- {name} -->")
    tail = rest.split(f"<!-- /{name} -->")[1]
    path.write_text(f"{head}<!-- {name} -->\n{text}\n<!-- /{name} -->{tail}")


def main() -> None:
    runs = [Path(name) for name in sys.argv[1:]]
    run = runs[0]
    stages = _stages(run)
    facts = json.loads((run / "report" / "facts.json").read_text())
    machine = json.loads((run / "machine.json").read_text()) | {"os": platform.system()}
    command = "make run; flywright run laptop --seed 2 --out runs/seed2; the same with 3"
    seeds = {one.name: _stages(one) for one in runs}
    write_result("laptop", command, on=machine, seeds=seeds, facts=facts)
    table = stage_table(stages, facts, machine)
    insert(ROOT / "README.md", "stages", table)
    insert(ROOT / "recipes" / "README.md", "stages", table)
    said = claims(runs)
    insert(ROOT / "recipes" / "README.md", "seeds", said)
    print(table, said, sep="\n\n")


if __name__ == "__main__":
    main()
