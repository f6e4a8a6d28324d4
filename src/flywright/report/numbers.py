"""The two files of numbers that programs read: stages.json and facts.json (HOUSE section 7)."""

import math
from typing import Any

from flywright.report.artifacts import Run
from flywright.report.made import synthetic_share


def _finite(value: Any) -> Any:
    """The same value with null for what JSON cannot hold (NaN and the infinities)."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def stages(run: Run) -> list[dict[str, Any]]:
    """Rows in the order in which they happened: {"turn", "stage", "metrics"}.

    A model from outside, which made the first data, stands before the stages it helped to train.
    """
    return [
        {"turn": row.turn, "stage": row.stage, "metrics": row.metrics} for row in run.evaluations
    ]


def reward_facts(run: Run) -> dict[str, Any]:
    """What the reward step found: "pair_accuracy", "length_only", "by_attribute" ..."""
    step = run.step("reward")
    facts = step.facts if step else {}
    return facts.get("reward_model", facts)


def judges_by_turn(run: Run) -> dict[str, dict[str, Any]]:
    """Turn -> what its comparisons step found of its judges."""
    return {
        str(step.turn): step.facts["judge"]
        for step in run.steps
        if step.kind == "comparisons" and isinstance(step.facts.get("judge"), dict)
    }


def judge_facts(run: Run) -> dict[str, Any]:
    """What the newest comparisons step found of its judges; several turns are in "by_turn"."""
    turns = judges_by_turn(run)
    newest = list(turns.values())[-1] if turns else {}
    return {**newest, "by_turn": turns} if len(turns) > 1 else newest


def facts(run: Run) -> dict[str, Any]:
    """{"reward_model", "judge", "synthetic_share", "steps": {NAME: {seconds, tokens, items}}}.

    `synthetic_share` is null before there are records to share out.
    """
    steps = {
        step.name: {key: step.manifest.get(key) or 0 for key in ("seconds", "tokens", "items")}
        for step in run.steps
    }
    return {
        "reward_model": _finite(reward_facts(run)),
        "judge": _finite(judge_facts(run)),
        "synthetic_share": synthetic_share(run),
        "steps": steps,
    }
