"""Every recipe's training settings in one table: `python benchmarks/settings_table.py`.

Values are read from the recipes as they stand, and written into recipes/README.md, which a test
holds to them.
"""

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "recipes" / "README.md"
RECIPES = ("nemotron-4-340b", "nemotron-4-15b", "align", "real", "laptop")
STAGES = ("pretrain", "continued", "reward", "code_sft", "sft", "dpo", "rpo")
FIELDS = (
    ("learning_rate", "rate"), ("schedule", ""), ("batch_size", "batch"), ("epochs", "epochs"),
    ("optimizer", ""), ("beta", "beta"), ("sft_weight", "w_sft"),
)  # fmt: skip
START, END = "<!-- settings -->", "<!-- /settings -->"


def stage_values(recipe: dict[str, Any], stage: str) -> dict[str, Any]:
    """What a recipe says of a stage."""
    table = recipe.get(stage, {})
    return {**table, **table.get("train", {})}


def cell(values: dict[str, Any]) -> str:
    """The fields that are stated, in few words."""
    said = []
    for name, short in FIELDS:
        if name in values:
            value = values[name]
            text = f"{value:g}" if isinstance(value, (int, float)) else str(value)
            said.append(f"{short} {text}".strip())
    return ", ".join(said) or "-"


def table() -> str:
    """The table, as Markdown."""
    read = {n: tomllib.loads((ROOT / "recipes" / f"{n}.toml").read_text()) for n in RECIPES}
    lines = ["| stage | " + " | ".join(RECIPES) + " |", "|" + "---|" * (1 + len(RECIPES))]
    for stage in STAGES:
        cells = [cell(stage_values(read[name], stage)) for name in RECIPES]
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def placed(text: str) -> str:
    """A page with the table between its markers."""
    before, rest = text.split(START)
    return f"{before}{START}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    README.write_text(placed(README.read_text()))
    print(table())
