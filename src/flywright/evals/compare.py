"""Two evaluations of the same items: the paired difference of each metric, with its interval."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flywright.errors import UserError
from flywright.evals.items import STAGE_METRICS, Item, metric_name, stage_mean
from flywright.evals.run import ITEMS
from flywright.records import read_jsonl
from flywright.stats import (
    bootstrap_mean,
    clustered_error,
    clustered_mean,
    detectable,
    paired_difference,
    standard_error,
)


def _items(folder: Path) -> dict[tuple[str, str], Item]:
    """All items below a folder by metric and id, the item files of several tasks together."""
    return {item.key: item for _, item in _placed(folder)}


def _placed(folder: Path) -> Iterator[tuple[str, Item]]:
    """(name of the metric, item); where the folder holds several tasks, "TASK/METRIC"."""
    paths = sorted(Path(folder).rglob(ITEMS))
    if not paths:
        raise UserError(f"{folder}: no {ITEMS} in it")
    for path in paths:
        task = f"{path.parent.name}/" if len(paths) > 1 else ""
        for item in read_jsonl(path, Item):
            yield task + metric_name(item), item


def compare(first: Path, second: Path) -> dict[str, dict[str, Any]]:
    """Metric -> {mean, low, high, n, unpaired, stderr, detectable}: second minus first, over the
    items in both.

    `unpaired` counts items that only one side has; `stderr` is that of the paired difference, with
    items of a split as a cluster where there are several; `detectable` the least true difference
    that so many items find in 4 of 5 tries. Raises UserError where nothing is shared.
    """
    before, after = ({(name, one.id): one for name, one in _placed(f)} for f in (first, second))
    shared: dict[str, list[tuple[Item, Item]]] = defaultdict(list)
    unpaired: dict[str, int] = defaultdict(int)
    for key in sorted(before.keys() | after.keys()):
        if key in before and key in after:
            shared[key[0]].append((after[key], before[key]))
        else:
            unpaired[key[0]] += 1
    if not shared:
        raise UserError(f"{first} and {second}: no item is in both, so there is nothing to compare")
    changes = {
        name: [after.score - before.score for after, before in both]
        for name, both in shared.items()
    }
    found = {metric: _apart(pairs, unpaired[metric]) for metric, pairs in shared.items()}
    return found | stage_mean(changes)


def _apart(pairs: list[tuple[Item, Item]], unpaired: int) -> dict[str, Any]:
    """A paired difference, with its standard error."""
    groups: dict[str, list[float]] = defaultdict(list)
    for after, before in pairs:
        groups[after.split].append(after.score - before.score)
    changes = list(groups.values())
    error = clustered_error(changes) if len(changes) > 1 else standard_error(changes)
    known = _difference([(after.score, before.score) for after, before in pairs], unpaired)
    if len(changes) > 1:  # whole subjects are drawn anew
        known |= clustered_mean(changes).as_dict()
    return {**known, "stderr": error, "detectable": detectable(error)}


def by_kind(first: Path, second: Path, kinds: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Kind -> {"first", "second", "difference", "n"}: the stage metrics' items by kind of item.

    kinds: item id -> kind; the near items of both evaluations that have one.
    """
    before, after = _items(first), _items(second)
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for key in sorted(before.keys() & after.keys()):
        if metric_name(before[key]) in STAGE_METRICS and key[1] in kinds:
            both = (after[key].score, before[key].score)
            groups[kinds[key[1]] or "none"].append(both)
    return {
        kind: {
            "first": bootstrap_mean([both[1] for both in pairs]).mean,
            "second": bootstrap_mean([both[0] for both in pairs]).mean,
            "difference": _difference(pairs, 0),
            "n": len(pairs),
        }
        for kind, pairs in sorted(groups.items())
    }


def _difference(pairs: list[tuple[float, float]], unpaired: int) -> dict[str, Any]:
    after, before = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return {**paired_difference(after, before).as_dict(), "unpaired": unpaired}
