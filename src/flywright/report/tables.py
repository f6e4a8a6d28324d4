"""The stage table of each turn, and wins, ties and losses; the page only lays them out."""

from dataclasses import dataclass, field
from typing import Any

from flywright.report.artifacts import Evaluation, Run, label
from flywright.stats import Interval, mean_of_means

PARTS = ("accuracy", "instruction_following", "code")  # what "mean" is the mean of
METRICS = {  # those that every run measures: name, and how it is taken
    "mean": ("Mean", "of the next three, %"),
    "accuracy": ("Accuracy", "greedy, exact, %"),
    "instruction_following": ("Instruction following", "prompt-strict, %"),
    "code": ("Code", "pass@1, hidden tests, %"),
    "reward": ("Reward", "weighted sum, mean"),
}


@dataclass(frozen=True)
class Cell:
    """One number. `mood`: "rise" or "fall" beyond the paired interval, "" for neither."""

    mean: str = "–"
    interval: str = ""
    change: str = ""
    mood: str = ""


@dataclass
class StageTable:
    """Columns: (metric, unit); rows: (stage, what it is, items, cells); falls: in words."""

    turn: int
    columns: list[tuple[str, str]]
    rows: list[tuple[str, str, int, list[Cell]]] = field(default_factory=list)
    falls: list[str] = field(default_factory=list)


def interval(value: Any) -> Interval:
    """{"mean", "low", "high", "n"} as an Interval; a bare number is one without a width."""
    if isinstance(value, dict):
        return Interval(value["mean"], value["low"], value["high"], value.get("n", 0))
    return Interval(value, value, value, 0)


def metric_label(name: str) -> str:
    """A metric's name as people read it."""
    if name.endswith("_far"):
        return f"{metric_label(name.removesuffix('_far'))}, far"
    return METRICS[name][0] if name in METRICS else label(name)


def _parts(metric: str) -> list[str]:
    """The metrics that are measured item by item: of the mean its three, of another itself."""
    kind = metric.removesuffix("_far")
    return [metric.replace(kind, part) for part in (PARTS if kind == "mean" else (kind,))]


def measured(row: Evaluation, metric: str) -> Interval | None:
    """A metric of a row; the mean is taken from the items where the row does not state it."""
    if metric in row.metrics:
        return interval(row.metrics[metric])
    groups = [list(row.scores.get(part, {}).values()) for part in _parts(metric)]
    return mean_of_means(groups) if all(groups) else None


def metric_names(evaluations: list[Evaluation], far: bool = False) -> list[str]:
    """All metrics, those that every run measures first; near or far."""
    found = {name for row in evaluations for name in row.metrics if name.endswith("_far") == far}
    usual = [name + "_far" * far for name in METRICS]
    first = [name for name in usual if any(measured(row, name) for row in evaluations)]
    return first + sorted(found - set(first))


def is_share(name: str, evaluations: list[Evaluation]) -> bool:
    """True for a metric that lies between 0 and 1 and is shown in per cent."""
    means = [value.mean for row in evaluations if (value := measured(row, name))]
    return not name.startswith("reward") and all(0 <= mean <= 1 for mean in means)


def show(value: float, share: bool, sign: str = "") -> str:
    """A number for people: per cent with one decimal, or three decimals; a real minus sign."""
    text = f"{value * 100:{sign}.1f}" if share else f"{value:{sign}.3f}"
    return text.replace("-", "−")


def ends(value: Interval, share: bool, sign: str = "") -> str:
    """The interval's ends for people."""
    return f"{show(value.low, share, sign)} to {show(value.high, share, sign)}"


def mood(difference: Interval) -> str:
    """ "rise" or "fall" where the interval leaves zero out, else ""."""
    return "rise" if difference.low > 0 else "fall" if difference.high < 0 else ""


def change(after: Evaluation, before: Evaluation, metric: str) -> Interval | None:
    """Paired difference of a metric over the items that both answered; None without such items."""
    differences = []
    for part in _parts(metric):
        new, old = after.scores.get(part, {}), before.scores.get(part, {})
        differences.append([new[i] - old[i] for i in sorted(new.keys() & old.keys())])
    return mean_of_means(differences) if all(differences) else None


def _cell(
    table: StageTable, row: Evaluation, before: Evaluation | None, metric: str, share: bool
) -> Cell:
    """A metric of a row, and its change against the row before; a fall is told to the table."""
    value = measured(row, metric)
    difference = change(row, before, metric) if before else None
    if value is None:
        return Cell()
    if before is None or difference is None:
        return Cell(show(value.mean, share), ends(value, share))
    if mood(difference) == "fall":
        lost = f"{show(-difference.mean, share)}{' points' * share} below {label(before.stage)}"
        told = f"95 % interval {ends(difference, share, '+')}, {difference.n:,} shared items"
        table.falls.append(f"{row.title}: {metric_label(metric)} is {lost} ({told}).")
    moved = show(difference.mean, share, "+")
    return Cell(show(value.mean, share), ends(value, share), moved, mood(difference))


def _column(metric: str, share: bool) -> tuple[str, str]:
    kind = metric.removesuffix("_far")
    return METRICS.get(kind, (label(kind), "%" * share))


def stage_table(run: Run, turn: int, far: bool = False) -> StageTable:
    """The stage table of one turn; a change is against the stage just before, on the same items.

    The generator stands first: a model from outside, or what the turn before ended with.
    """
    rows, earlier = run.turn(turn), run.last(turn - 1)
    shares = {metric: is_share(metric, run.evaluations) for metric in metric_names(rows, far)}
    table = StageTable(turn, [_column(metric, share) for metric, share in shares.items()])
    befores = [None, *(row if row.ours else None for row in rows[:-1])]
    both = [(earlier, None)] if earlier else []
    for row, before in [*both, *zip(rows, befores, strict=True)]:
        cells = [_cell(table, row, before, *column) for column in shares.items()]
        name = label(row.stage) if row.turn == turn else row.title
        said = "generator: wrote this turn's answers" if row is earlier or not row.ours else ""
        table.rows.append((name, said, row.asked(far), cells))
    return table
