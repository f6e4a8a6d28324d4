"""The report's lists of facts: judges, what data was made of, time and tokens by step."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from flywright.report.artifacts import Run, Step, label
from flywright.report.made import Mix
from flywright.report.numbers import judges_by_turn, reward_facts
from flywright.report.read import number


@dataclass(frozen=True)
class JudgeRow:
    """One judge's agreement with the truth, 0..1, over n pairs (0 where not stated)."""

    name: str
    accuracy: float
    n: int
    note: str = ""


def share_of(value: Any) -> float | None:
    """A share that was recorded as a number, or as {"mean", ...} or {"accuracy", ...}."""
    if isinstance(value, dict):
        value = next((value[key] for key in ("accuracy", "mean") if key in value), None)
    return number(value)


def _judge_row(name: str, value: Any) -> JudgeRow | None:
    accuracy, n, note = share_of(value), 0.0, ""
    if isinstance(value, dict):
        n = next((number(value[key]) or 0.0 for key in ("decided", "n") if key in value), 0.0)
        note = str(value.get("note", ""))
    if accuracy is None or not 0 <= accuracy <= 1:
        return None
    return JudgeRow(name, accuracy, int(n), note)


def judge_rows(run: Run) -> list[JudgeRow]:
    """The judges of the comparisons, and the reward model on held-out pairs beside length alone."""
    judges = [
        _judge_row(f"{label(name.removesuffix('_accuracy'))}, turn {turn}", value)
        for turn, found in judges_by_turn(run).items()
        for name, value in found.items()
    ]
    reward = reward_facts(run)
    names = {
        "pair_accuracy": "Reward model, held-out pairs",
        "length_only": "The longer answer wins, held-out pairs",
    }
    pairs = [_judge_row(words, reward[key]) for key, words in names.items() if key in reward]
    return [row for row in [*pairs, *judges] if row]


def _scalar(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def flat_facts(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """(name, value) of a step's facts; a group of plain values becomes one line."""
    rows = []
    for key, value in facts.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict) and any(isinstance(v, dict | list) for v in value.values()):
            rows += flat_facts(value, f"{name}, ")
        elif isinstance(value, dict):
            parts = [f"{str(k).replace('_', ' ')} {_scalar(v)}" for k, v in value.items()]
            rows.append((name, " · ".join(parts)))
        elif isinstance(value, list):
            rows.append((name, ", ".join(_scalar(part) for part in value)))
        elif value is not None:
            rows.append((name, _scalar(value)))
    return rows


@dataclass(frozen=True)
class Card:
    """A titled list of facts: what one data step's `total` records were made of, or a judge."""

    title: str
    total: int
    lines: list[tuple[str, str]]


def _counted(counts: Counter, most: int = 8) -> str:
    parts = [f"{name} {count:,}" for name, count in counts.most_common(most)]
    rest = len(counts) - most
    return " · ".join(parts) + (f" · and {rest} more" if rest > 0 else "")


def mix_card(mix: Mix) -> Card:
    """The card of one data step: counts by what its records say, then its own facts."""
    counts = {
        "Records": mix.kinds,
        "Files": mix.files if len(mix.files) > 1 else Counter(),
        "Sources": mix.sources,
        "Answers by": mix.writers,
        "Models": mix.models,
        "Judged by": mix.judges,
        "Tasks": mix.tasks,
        "Filters passed": mix.filters,
    }
    lines = [(name, _counted(counter)) for name, counter in counts.items() if counter]
    facts = {name: value for name, value in mix.step.facts.items() if name != "judge"}
    lines += [(name[:1].upper() + name[1:], value) for name, value in flat_facts(facts)]
    return Card(mix.step.title, sum(mix.kinds.values()), lines)


def judge_cards(run: Run) -> list[Card]:
    """All that was found of the reward model and of each turn's judges, as it was recorded."""
    found = {"Reward model": reward_facts(run)}
    for turn, facts in judges_by_turn(run).items():
        found[f"Judges of the comparisons, turn {turn}"] = facts
    return [Card(title, 0, flat_facts(facts)) for title, facts in found.items() if facts]


@dataclass(frozen=True)
class StepRow:
    """Time, tokens and items of one step; `width` is its share of the longest step, in per cent."""

    title: str
    time: str
    tokens: str
    rate: str
    items: str
    width: float


def duration(seconds: float) -> str:
    """Seconds as people say them: "48 s", "3 min 20 s", "1 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _step_row(step: Step, longest: float) -> StepRow:
    counts = {key: number(step.manifest.get(key)) or 0.0 for key in ("seconds", "tokens", "items")}
    seconds, tokens, items = counts["seconds"], counts["tokens"], counts["items"]
    return StepRow(
        title=step.title,
        time=duration(seconds),
        tokens=f"{tokens:,.0f}" if tokens else "–",
        rate=f"{tokens / seconds:,.0f}" if tokens and seconds else "–",
        items=f"{items:,.0f}" if items else "–",
        width=100 * seconds / longest if longest else 0.0,
    )


def step_rows(run: Run) -> list[StepRow]:
    """One row for each finished step, in the order of the road."""
    longest = max((number(step.manifest.get("seconds")) or 0.0 for step in run.steps), default=0.0)
    return [_step_row(step, longest) for step in run.steps]


def total(run: Run, key: str) -> float:
    """Sum of "seconds", "tokens" or "items" over the finished steps."""
    return sum(number(step.manifest.get(key)) or 0.0 for step in run.steps)
