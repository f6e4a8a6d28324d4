"""What programs read, stages.json and facts.json (HOUSE section 7); and tables of what is left."""

from collections.abc import Iterator
from typing import Any

from flywright.report.artifacts import Run, Step
from flywright.report.data import CARD_KEYS, DATA_STEPS, synthetic_share
from flywright.report.tables import interval

VERDICT_KEYS = ("gain", "against_generator", "against_turn_before", "by_weakness", "overlap")
Row = tuple[str, float | str, str, int]  # what, value, its interval, items


def stages(run: Run) -> list[dict[str, Any]]:
    """Rows in the order in which they happened: {"turn", "stage", "metrics"}.

    A model from outside, which made the first data, stands before the stages it helped to train.
    """
    rows = run.evaluations
    return [{"turn": row.turn, "stage": row.stage, "metrics": row.metrics} for row in rows]


def judges_by_turn(run: Run) -> dict[str, dict[str, Any]]:
    """Turn -> judge -> {"accuracy", "decided", "n"}, as the turn's comparisons step found it."""
    steps = [step for step in run.steps if step.kind == "comparisons" and "judge" in step.facts]
    return {str(step.turn): step.facts["judge"] for step in steps}


def facts(run: Run) -> dict[str, Any]:
    """{"reward_model", "judge", "synthetic_share", "steps": {NAME: {seconds, tokens, items}}}.

    `judge` holds the newest turn's judges, and all turns' in "by_turn" where there are several;
    `synthetic_share` is null before there are records to share out. Where they were measured:
    "judges" on the reward model's held-out pairs, and "verdict" by turn.
    """
    turns = judges_by_turn(run)
    newest = list(turns.values())[-1] if turns else {}
    verdicts = {str(step.turn): step.facts for step in run.steps if step.kind == "verdict"}
    measured = {"judges": run.facts("judges"), "verdict": verdicts}
    return {
        "reward_model": run.facts("reward"),
        "judge": {**newest, "by_turn": turns} if len(turns) > 1 else newest,
        **{name: found for name, found in measured.items() if found},
        "synthetic_share": synthetic_share(run),
        "steps": {
            step.name: {key: step.manifest[key] for key in ("seconds", "tokens", "items")}
            for step in run.steps
        },
    }


def flat(value: Any, path: str = "") -> Iterator[Row]:
    """The leaves of nested facts: numbers, texts, and {"mean", "low", "high", "n"}."""
    name = path.replace("_", " ")
    if not isinstance(value, dict):
        yield name, value if isinstance(value, float) else str(value), "", 0
    elif {"mean", "low", "high"} <= value.keys():
        said = interval(value)
        yield name, said.mean, f"{said.low:.4g} to {said.high:.4g}", said.n
    else:
        for key, part in value.items():
            yield from flat(part, f"{path} · {key}" if path else key)


def plain_tables(run: Run) -> list[tuple[str, list[Row]]]:
    """(step, rows) of all facts that no other part of the page shows."""

    def rest(step: Step) -> dict[str, Any]:
        if step.evaluates or step.metrics or step.kind in (*DATA_STEPS, "tokenizer", "judges"):
            return {}
        shown = VERDICT_KEYS if step.kind == "verdict" else CARD_KEYS if step.records else ()
        return {k: v for k, v in step.facts.items() if k not in shown}

    return [(step.title, list(flat(rest(step)))) for step in run.steps if rest(step)]
