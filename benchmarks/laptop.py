"""The stage table of a run, as Markdown, into the READMEs: `python benchmarks/laptop.py RUN`.

Reads RUN/report/{stages,facts}.json and writes benchmarks/results/laptop.json, and the table
between the markers in README.md and recipes/README.md. No number there is typed by hand.
"""

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
METRICS = ("accuracy", "instruction_following", "code", "reward")
BEGIN, END = "<!-- stages -->", "<!-- /stages -->"


def cell(value: dict[str, float], name: str) -> str:
    """A mean with half the width of its interval; shares in per cent."""
    scale, digits = (1, 2) if name == "reward" else (100, 1)
    half = (value["high"] - value["low"]) / 2
    return f"{value['mean'] * scale:.{digits}f} ± {half * scale:.{digits}f}"


def markdown(stages: list[dict], facts: dict) -> str:
    """The stage table and one line of facts."""
    lines = ["| turn | stage | accuracy % | instructions % | code % | reward |", "|" + "---|" * 6]
    for row in stages:
        cells = [cell(row["metrics"][name], name) for name in METRICS]
        lines.append(f"| {row['turn']} | {row['stage']} | " + " | ".join(cells) + " |")
    seconds = sum(step["seconds"] for step in facts["steps"].values())
    reward = facts["reward_model"]
    lines += [
        "",
        f"{seconds / 60:.1f} minutes in all. Reward model: {reward['pair_accuracy']:.1%} of "
        f"held-out pairs, a length-only rule {reward['length_only']:.1%}. Synthetic share of the "
        f"SFT and preference records: {facts['synthetic_share']:.1%}. The same held-out prompts in "
        "every row; ± is half of the 95 % bootstrap interval.",
    ]
    return "\n".join(lines)


def insert(path: Path, text: str) -> None:
    """Replace what stands between the markers."""
    whole = path.read_text()
    head, rest = whole.split(BEGIN)
    tail = rest.split(END)[1]
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")


def main() -> None:
    run = Path(sys.argv[1])
    stages = json.loads((run / "report" / "stages.json").read_text())
    facts = json.loads((run / "report" / "facts.json").read_text())
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT
    )
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "machine": json.loads((run / "machine.json").read_text()) | {"os": platform.system()},
        "command": "make run",
        "stages": stages,
        "facts": facts,
    }
    path = ROOT / "benchmarks" / "results" / "laptop.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    text = markdown(stages, facts)
    insert(ROOT / "README.md", text)
    insert(ROOT / "recipes" / "README.md", text)
    print(text)


if __name__ == "__main__":
    main()
