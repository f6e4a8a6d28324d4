"""Reads a run's artifacts: finished steps, evaluations and training curves.

A run directory holds steps/NAME@VERSION/manifest.json and what the step made (HOUSE section 7).
A step without a manifest is unfinished and is left out; of several versions the newest counts.
"""

import json
from pathlib import Path
from typing import Any

from flywright.errors import UserError
from flywright.records import parse_lines
from flywright.report.artifacts import STAGES, Curve, Evaluation, Item, Run, Step, rank


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object. Raises UserError that names the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value


def number(value: Any) -> float | None:
    """A finite float, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < float("inf") else None


def _version_key(version: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in version.split(".")]


def read_steps(run_dir: Path) -> list[Step]:
    """The finished steps in the order of the road. Raises UserError if this is no run directory."""
    folder = Path(run_dir) / "steps"
    if not folder.is_dir():
        raise UserError(f"{run_dir}: no steps/ folder, so this is not a run directory")
    newest: dict[str, Step] = {}
    for path in sorted(folder.glob("*@*/manifest.json")):
        if path.parent.name.startswith("."):
            continue
        name, _, version = path.parent.name.rpartition("@")
        step = Step(name, version, path.parent, read_json(path))
        if name not in newest or _version_key(version) > _version_key(newest[name].version):
            newest[name] = step
    return sorted(newest.values(), key=lambda step: step.position)


def _text(value: Any) -> str:
    if isinstance(value, dict) and "messages" in value:  # a Conversation
        turns = [str(message.get("content", "")) for message in value["messages"]]
        return turns[0] if len(turns) == 1 else "\n".join(f"> {turn}" for turn in turns)
    if isinstance(value, list):
        return ", ".join(_text(part) for part in value)
    return "" if value is None else str(value)


def read_items(path: Path) -> list[Item]:
    """items.jsonl of an evaluation; items without a numeric score are left out."""
    items = []
    for line, value in parse_lines(path) if path.exists() else ():
        if not isinstance(value, dict) or "id" not in value or "metric" not in value:
            raise UserError(f"{path}:{line}: an evaluation item needs an id and a metric")
        score = value.get("score")
        score = float(score) if isinstance(score, bool) else number(score)
        if score is None:
            continue
        prompt = value.get("prompt") or value.get("conversation")
        names = ("task", "split", "metric", "answer", "truth")
        texts = {name: _text(value.get(name)) for name in names}
        items.append(Item(id=str(value["id"]), score=score, prompt=_text(prompt), **texts))
    return items


def read_evaluation(step: Step) -> Evaluation | None:
    """The evaluation that a T-eval-STAGE step holds, or None if it holds none."""
    if not step.kind.startswith("eval-") or not (step.folder / "results.json").exists():
        return None
    results = read_json(step.folder / "results.json")
    metrics = {}
    for name, value in (results.get("metrics") or {}).items():
        if isinstance(value, dict) and number(value.get("mean")) is not None:
            ends = {key: number(value.get(key)) for key in ("mean", "low", "high")}
            metrics[name] = {**ends, "n": int(number(value.get("n")) or 0)}
    return Evaluation(
        turn=int(results.get("turn", step.turn)),
        stage=str(results.get("stage", step.kind.removeprefix("eval-"))),
        model=str(results.get("model", "")),
        metrics=metrics,
        items=read_items(step.folder / "items.jsonl"),
    )


def read_curve(step: Step) -> Curve | None:
    """The training curve of a step, or None. A step number written twice counts once, the last."""
    path = step.folder / "metrics.jsonl"
    if not path.exists():
        return None
    rows = [row for _, row in parse_lines(path) if isinstance(row, dict)]
    rows = list({row.get("step", index): row for index, row in enumerate(rows)}.values())
    names = {name: None for row in rows for name in row}
    columns = {}
    for name in names:
        values = [number(row.get(name)) for row in rows]
        columns[name] = [float("nan") if value is None else value for value in values]
    return Curve(step, columns) if rows else None


def read_run(run_dir: Path) -> Run:
    """Read a run directory, finished or partial.

    Raises UserError naming the file (and line) when an artifact is not what it should be.
    """
    steps = read_steps(run_dir)
    evaluations = [found for step in steps if (found := read_evaluation(step))]
    curves = [found for step in steps if (found := read_curve(step))]
    evaluations.sort(key=lambda row: (row.turn, rank(row.stage, STAGES, -1)))
    return Run(Path(run_dir), steps, evaluations, curves)
