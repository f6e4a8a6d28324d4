"""The report's tables as rows of text, made from a Run; the page only lays them out."""

from collections import Counter
from dataclasses import dataclass, field

from flywright.report.artifacts import Evaluation, label
from flywright.stats import Interval, paired_difference

METRIC_LABELS = {
    "accuracy": "Accuracy",
    "instruction_following": "Instruction following",
    "code": "Code",
    "reward": "Reward",
}
METRIC_NOTES = {
    "accuracy": "greedy, exact answer",
    "instruction_following": "prompt-strict",
    "code": "pass@1 on hidden tests",
    "reward": "weighted sum, mean",
}
WITHOUT_DIRECTION = ("length", "tokens", "words")  # more of these is neither better nor worse


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
    falls: list[str] = field(default_factory=list)
    compared: bool = False


def metric_label(name: str) -> str:
    """A metric's name as people read it."""
    if name.endswith("_far"):
        return f"{metric_label(name.removesuffix('_far'))}, far"
    return METRIC_LABELS.get(name, name.replace("_", " ").replace("-", " ").capitalize())


def metric_names(evaluations: list[Evaluation]) -> list[str]:
    """All metrics, the four that every run measures first."""
    found = sorted({name for row in evaluations for name in row.metrics})
    return [name for name in METRIC_LABELS if name in found] + [
        name for name in found if name not in METRIC_LABELS
    ]


def is_share(name: str, evaluations: list[Evaluation]) -> bool:
    """True for a metric that lies between 0 and 1 and is shown in per cent."""
    means = [row.metrics[name]["mean"] for row in evaluations if name in row.metrics]
    if name.startswith("reward") or not means:
        return False
    return all(mean is not None and 0 <= mean <= 1 for mean in means)


def show(value: float | None, share: bool, sign: bool = False) -> str:
    """A number for people: per cent with one decimal, or two decimals; a real minus sign."""
    if value is None:
        return "–"
    text = f"{value * 100:{'+' if sign else ''}.1f}" if share else f"{value:{'+' * sign}.2f}"
    return text.replace("-", "−")


def change(after: Evaluation, before: Evaluation, metric: str) -> Interval | None:
    """Paired difference of a metric over the items that both answered; None without such items."""
    new, old = after.scores.get(metric, {}), before.scores.get(metric, {})
    common = sorted(new.keys() & old.keys())
    if not common:
        return None
    return paired_difference([new[i] for i in common], [old[i] for i in common])


def mood(metric: str, difference: Interval) -> str:
    """ "rise" or "fall" where the paired interval leaves zero out, for metrics with a direction."""
    if any(word in metric for word in WITHOUT_DIRECTION):
        return ""
    if difference.low > 0:
        return "rise"
    return "fall" if difference.high < 0 else ""


def _cell(row: Evaluation, before: Evaluation | None, metric: str, share: bool) -> Cell:
    value = row.metrics.get(metric)
    if value is None:
        return Cell()
    low, high = value.get("low"), value.get("high")
    interval = f"{show(low, share)} – {show(high, share)}" if low is not None else ""
    difference = change(row, before, metric) if before else None
    if difference is None:
        return Cell(show(value["mean"], share), interval)
    text = show(difference.mean, share, sign=True)
    return Cell(show(value["mean"], share), interval, text, mood(metric, difference))


def stage_table(evaluations: list[Evaluation], turn: int) -> StageTable:
    """The stage table of one turn; a change is against the stage just before, on the same items."""
    rows = [row for row in evaluations if row.turn == turn]
    table = StageTable(turn, [label(row.stage) for row in rows])
    befores = [None, *(row if row.ours else None for row in rows[:-1])]
    for name in metric_names(rows):
        share = is_share(name, evaluations)
        pairs = list(zip(rows, befores, strict=True))
        cells = [_cell(row, before, name, share) for row, before in pairs]
        note = METRIC_NOTES.get(name.removesuffix("_far"), "")
        unit = f"{note}, %" if share and note else ("%" if share else note)
        table.rows.append((metric_label(name), unit, cells))
        for (row, before), cell in zip(pairs, cells, strict=True):
            table.compared = table.compared or bool(cell.change)
            if cell.mood == "fall" and before:
                way = f"from {label(before.stage)} to {label(row.stage)}"
                points = " points" if share else ""
                table.falls.append(f"{metric_label(name)} {way}: {cell.change}{points}")
    return table


def first_and_last(
    evaluations: list[Evaluation], turn: int
) -> tuple[Evaluation, Evaluation] | None:
    """General SFT and the last stage of a turn, which the preference stages are judged by."""
    rows = [row for row in evaluations if row.turn == turn and row.ours]
    first = next((row for row in rows if row.stage == "sft"), None)
    return (first, rows[-1]) if first and rows[-1] is not first else None


@dataclass(frozen=True)
class Wins:
    """Counts of items on which the last stage scored more than, the same as, less than SFT."""

    turn: int
    metric: str
    last: str
    win: int
    tie: int
    loss: int


def wins(evaluations: list[Evaluation]) -> list[Wins]:
    """Win, tie and loss of each turn's last stage against its General SFT, item by item."""
    found = []
    for turn in sorted({row.turn for row in evaluations}):
        ends = first_and_last(evaluations, turn)
        if not ends:
            continue
        first, last = ends
        for metric in metric_names([first, last]):
            old, new = first.scores.get(metric, {}), last.scores.get(metric, {})
            signs = Counter(
                (new[i] > old[i] + 1e-6) - (new[i] < old[i] - 1e-6) for i in old.keys() & new.keys()
            )
            aside = metric.endswith("_far") or any(word in metric for word in WITHOUT_DIRECTION)
            if signs and not aside:
                found.append(Wins(turn, metric, label(last.stage), signs[1], signs[0], signs[-1]))
    return found


def task_table(evaluations: list[Evaluation]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """(stage labels, rows of (task, one mean a stage)) of the last turn, for metrics 0..1."""
    turn = max((row.turn for row in evaluations), default=0)
    rows = [row for row in evaluations if row.turn == turn]
    sums: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in rows:
        for item in row.items:
            if item.metric != "reward":
                key = (item.metric, item.task, item.split)
                sums.setdefault(key, {}).setdefault(row.stage, []).append(item.score)
    table = []
    for (metric, task, split), by_stage in sorted(sums.items()):
        name = f"{metric_label(metric)} · {label(task)}" + (f" · {split}" if split else "")
        if all(0 <= score <= 1 for scores in by_stage.values() for score in scores):
            means = [by_stage.get(row.stage) for row in rows]
            table.append((name, [show(sum(m) / len(m), True) if m else "–" for m in means]))
    return [label(row.stage) for row in rows], table
