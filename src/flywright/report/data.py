"""What the data of each step was made of: sources, writers, judges, and what filters dropped.

The records themselves are the witnesses (their `lineage`); what was dropped is no record any more,
so it comes from the step's facts.
"""

from collections import Counter, defaultdict
from typing import Any

from flywright.report.artifacts import Run, Step

DATA_STEPS = ("documents", "shards", "ratings", "prompts", "code", "dialogues", "comparisons")
SHARE_STEPS = ("code", "dialogues", "comparisons")  # what SFT and preference training read
MOST = 8  # names in one line of a card


def synthetic_share(run: Run) -> float | None:
    """Share of SFT and preference records whose answer a model wrote; None before there are any.

    Over all turns, each distinct record once; ratings are not among them (HOUSE section 7).
    """
    found: dict[str, dict[str, Any]] = {}
    for step in run.steps:
        if step.kind in SHARE_STEPS:
            found |= step.records
    by_model = [record["lineage"].get("answer_by") == "model" for record in found.values()]
    return sum(by_model) / len(by_model) if by_model else None


def example_id(run: Run) -> str:
    """The first of the newest pairs, for pairs come the longest way; "" before there are any."""
    pairs = [step.records for step in run.steps if step.kind == "comparisons"]
    return next((name for found in reversed(pairs) for name in found), "")


def _counted(step: Step) -> dict[str, Counter[str]]:
    """Counts of a step's records by what each says of itself."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in step.records.values():
        lineage = record["lineage"]
        counts["Sources"][lineage["source"]] += 1
        counts["Answers by"][lineage.get("answer_by", "")] += 1
        counts["Models"][lineage.get("model", "")] += 1
        counts["Judged by"][record.get("judge", "")] += 1
        counts["Tasks"][record.get("task", "")] += 1
        counts["Filters passed"].update(lineage.get("filters", []))
    for counter in counts.values():
        del counter[""]  # those that do not say
    return counts


def dropped(facts: dict[str, Any]) -> Counter[str]:
    """What a data step left out, by reason, from its own facts."""
    reasons = Counter(facts.get("dropped", {}))
    for flow in facts.get("flows", {}).values():
        reasons["request failed"] += flow["failed"]
        for name, count in flow.items():
            if name.startswith("dropped: "):
                reasons[name.removeprefix("dropped: ")] += count
    for name in ("copies", "near_copies", "contaminated"):
        reasons[name.replace("_", " ")] += facts.get(name, 0)
    return +reasons  # only what happened


def _listed(counts: Counter[str]) -> str:
    parts = [f"{name} {count:,}" for name, count in counts.most_common(MOST)]
    rest = len(counts) - MOST
    return " · ".join(parts) + (f" · and {rest} more" if rest > 0 else "")


def _passed(flows: dict[str, dict[str, int]]) -> str:
    return " · ".join(f"{name} {flow['in']:,} → {flow['out']:,}" for name, flow in flows.items())


def card(step: Step) -> tuple[str, str, list[tuple[str, str]]]:
    """(title, how many, lines) of one data step: what its records say, then what its facts say."""
    facts = step.facts
    lines = {name: _listed(counter) for name, counter in _counted(step).items()}
    lines |= {
        "Tokens": _listed(Counter(facts.get("tokens", {}))),
        "In → out": _passed(facts.get("flows", {})),
        "Quality filter": _passed(facts.get("quality_filter", {})),
        "Dropped": _listed(dropped(facts)),
        "Code ran in": facts.get("isolation", ""),
    }
    count = len(step.records) or step.manifest["items"]
    how_many = f"{count:,} record{'s' * (count != 1)}"
    if "tokens" in facts:
        how_many = f"{step.manifest['tokens']:,} tokens"
    return step.title, how_many, [(name, text) for name, text in lines.items() if text]


def cards(run: Run) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """A card for each finished data step, in the order of the road."""
    return [card(step) for step in run.steps if step.kind in DATA_STEPS]
