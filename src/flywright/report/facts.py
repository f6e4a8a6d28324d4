"""What programs read: the rows of stages.json and facts.json (HOUSE section 7)."""

from typing import Any

from flywright.report.artifacts import Run, label
from flywright.report.data import synthetic_share


def stages(run: Run) -> list[dict[str, Any]]:
    """Rows in the order in which they happened: {"turn", "stage", "metrics"}.

    A model from outside, which made the first data, stands before the stages it helped to train.
    """
    rows = run.evaluations
    return [{"turn": row.turn, "stage": row.stage, "metrics": row.metrics} for row in rows]


def judges_by_turn(run: Run) -> dict[str, dict[str, Any]]:
    """Turn -> judge -> {"accuracy", "decided", "n"}, as the turn's comparisons step found it."""
    steps = [step for step in run.steps if step.kind == "comparisons"]
    return {str(step.turn): step.facts["judge"] for step in steps}


def facts(run: Run) -> dict[str, Any]:
    """{"reward_model", "judge", "synthetic_share", "steps": {NAME: {seconds, tokens, items}}}.

    `judge` holds the newest turn's judges, and all turns' in "by_turn" where there are several;
    `synthetic_share` is null before there are records to share out.
    """
    turns = judges_by_turn(run)
    newest = list(turns.values())[-1] if turns else {}
    return {
        "reward_model": run.facts("reward"),
        "judge": {**newest, "by_turn": turns} if len(turns) > 1 else newest,
        "synthetic_share": synthetic_share(run),
        "steps": {
            step.name: {key: step.manifest[key] for key in ("seconds", "tokens", "items")}
            for step in run.steps
        },
    }


def judge_rows(run: Run) -> list[tuple[str, float, int]]:
    """(judge, agreement with the truth 0..1, pairs): the reward model on held-out pairs beside
    length alone, then the judges of each turn on the pairs that they decided."""
    rows = []
    if reward := run.facts("reward"):
        names = {"pair_accuracy": "Reward model", "length_only": "The longer answer wins"}
        pairs = reward["pairs"]
        rows = [(f"{words}, held-out pairs", reward[key], pairs) for key, words in names.items()]
    for turn, judges in judges_by_turn(run).items():
        for name, found in judges.items():
            rows.append((f"{label(name)}, turn {turn}", found["accuracy"], found["decided"]))
    return rows
