"""The stage table of each turn, and wins, ties and losses; the page only lays them out."""

from collections import Counter
from dataclasses import dataclass, field

from flywright.report.artifacts import Evaluation, label
from flywright.stats import Interval, paired_difference

METRICS = {  # the four that every run measures: name, and how it is taken
    "accuracy": ("Accuracy", "greedy, exact answer, %"),
    "instruction_following": ("Instruction following", "prompt-strict, %"),
    "code": ("Code", "pass@1 on hidden tests, %"),
    "reward": ("Reward", "weighted sum, mean"),
}


@dataclass(frozen=True)
class Cell:
    """One metric of one stage. `mood`: "rise" or "fall" beyond the interval, "" for neither."""

    mean: str = "–"
    interval: str = ""
    change: str = ""
    mood: str = ""


@dataclass
class StageTable:
    """One turn's stages as columns, metrics as rows (the layout of SPEC 8.4)."""

    turn: int
    stages: list[str]
    rows: list[tuple[str, str, list[Cell]]] = field(default_factory=list)


def metric_label(name: str) -> str:
    """A metric's name as people read it."""
    if name.endswith("_far"):
        return f"{metric_label(name.removesuffix('_far'))}, far"
    return METRICS[name][0] if name in METRICS else label(name)


def metric_names(evaluations: list[Evaluation]) -> list[str]:
    """All metrics, the four that every run measures first."""
    found = {name for row in evaluations for name in row.metrics}
    return [name for name in METRICS if name in found] + sorted(found - METRICS.keys())


def is_share(name: str, evaluations: list[Evaluation]) -> bool:
    """True for a metric that lies between 0 and 1 and is shown in per cent."""
    means = [row.metrics[name]["mean"] for row in evaluations if name in row.metrics]
    return not name.startswith("reward") and all(0 <= mean <= 1 for mean in means)


def show(value: float, share: bool, sign: str = "") -> str:
    """A number for people: per cent with one decimal, or three decimals; a real minus sign."""
    text = f"{value * 100:{sign}.1f}" if share else f"{value:{sign}.3f}"
    return text.replace("-", "−")


def change(after: Evaluation, before: Evaluation, metric: str) -> Interval | None:
    """Paired difference of a metric over the items that both answered; None without such items."""
    new, old = after.scores.get(metric, {}), before.scores.get(metric, {})
    common = sorted(new.keys() & old.keys())
    if not common:
        return None
    return paired_difference([new[i] for i in common], [old[i] for i in common])


def _cell(row: Evaluation, before: Evaluation | None, metric: str, share: bool) -> Cell:
    value = row.metrics.get(metric)
    if value is None:
        return Cell()
    mean = show(value["mean"], share)
    interval = f"{show(value['low'], share)} – {show(value['high'], share)}"
    difference = change(row, before, metric) if before else None
    if difference is None:
        return Cell(mean, interval)
    mood = "rise" if difference.low > 0 else "fall" if difference.high < 0 else ""
    return Cell(mean, interval, show(difference.mean, share, "+"), mood)


def stage_table(evaluations: list[Evaluation], turn: int) -> StageTable:
    """The stage table of one turn; a change is against the stage just before, on the same items."""
    rows = [row for row in evaluations if row.turn == turn]
    table = StageTable(turn, [label(row.stage) for row in rows])
    befores = [None, *(row if row.ours else None for row in rows[:-1])]
    for metric in metric_names(rows):
        share = is_share(metric, evaluations)
        unit = METRICS.get(metric.removesuffix("_far"), ("", "%" * share))[1]
        pairs = zip(rows, befores, strict=True)
        cells = [_cell(row, before, metric, share) for row, before in pairs]
        table.rows.append((metric_label(metric), unit, cells))
    return table


def wins(evaluations: list[Evaluation]) -> list[tuple[str, tuple[int, int, int]]]:
    """(metric and turn, (wins, ties, losses)): the last stage's items against General SFT's."""
    found = []
    for turn in sorted({row.turn for row in evaluations}):
        ours = [row for row in evaluations if row.turn == turn and row.ours]
        first = next((row for row in ours if row.stage == "sft"), None)
        if first is None or first is (last := ours[-1]):
            continue
        for metric in METRICS:
            old, new = first.scores.get(metric, {}), last.scores.get(metric, {})
            signs = Counter(
                (new[i] > old[i] + 1e-6) - (new[i] < old[i] - 1e-6) for i in old.keys() & new.keys()
            )
            if signs:
                name = f"{metric_label(metric)}, {label(last.stage)}, turn {turn}"
                found.append((name, (signs[1], signs[0], signs[-1])))
    return found
