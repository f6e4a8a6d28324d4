"""Two evaluations of the same items: the paired difference of each metric, with its interval."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flywright.errors import UserError
from flywright.evals.items import STAGE_METRICS, Item, metric_name, stage_mean
from flywright.evals.run import ITEMS
from flywright.records import read_jsonl
from flywright.stats import bootstrap_mean, paired_difference


def _items(folder: Path) -> dict[tuple[str, str], Item]:
    """All items below a folder by metric and id, the item files of several tasks together."""
    paths = sorted(Path(folder).rglob(ITEMS))
    if not paths:
        raise UserError(f"{folder}: no {ITEMS} in it")
    return {item.key: item for path in paths for item in read_jsonl(path, Item)}


def compare(first: Path, second: Path) -> dict[str, dict[str, Any]]:
    """Metric -> {mean, low, high, n, unpaired}: second minus first over the items in both.

    `unpaired` counts items that only one side has. Raises UserError where nothing is shared.
    """
    before, after = _items(first), _items(second)
    shared: dict[str, list[tuple[float, float]]] = defaultdict(list)
    unpaired: dict[str, int] = defaultdict(int)
    for key in sorted(before.keys() | after.keys()):
        item = before.get(key) or after[key]
        if key in before and key in after:
            shared[metric_name(item)].append((after[key].score, before[key].score))
        else:
            unpaired[metric_name(item)] += 1
    if not shared:
        raise UserError(f"{first} and {second}: no item is in both, so there is nothing to compare")
    changes = {name: [after - before for after, before in both] for name, both in shared.items()}
    found = {metric: _difference(pairs, unpaired[metric]) for metric, pairs in shared.items()}
    return found | stage_mean(changes)


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
