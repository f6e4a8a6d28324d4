"""What the data of each step was made of: sources, writers, judges, and what filters dropped.

The records themselves are the witnesses (their `lineage`); what was dropped is no record any more,
so it comes from the step's facts.
"""

import json
from collections import Counter, defaultdict
from typing import Any

from flywright.report.artifacts import Run, Step

DATA_STEPS = ("documents", "shards", "ratings", "prompts", "code", "dialogues", "comparisons")
SHARE_STEPS = ("code", "dialogues", "comparisons")  # what SFT and preference training read
COPIES = ("copies", "near_copies", "contaminated")
CARD_KEYS = (  # facts that a card shows
    *("dropped", "flows", "quality_filter", "tokens", "isolation", "judge", "decided_by"),
    *("diversity", "notes", *COPIES),
)
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
        counts["Models"][lineage.get("model", "").partition("@")[0]] += 1
        counts["Tasks"][record.get("task", "")] += 1
        counts["Filters passed"].update(lineage.get("filters", []))
    for counter in counts.values():
        del counter[""]  # those that do not say
    return counts


def _listed(counts: Counter[str]) -> str:
    parts = [f"{name.replace('_', ' ')} {count:,}" for name, count in counts.most_common(MOST)]
    rest = len(counts) - MOST
    return " · ".join(parts) + (f" · and {rest} more" if rest > 0 else "")


def _happened(flow: dict[str, int]) -> str:
    """What a flow or a filter dropped, failed on or let through, by reason."""
    reasons = {name.removeprefix("dropped: "): count for name, count in flow.items() if count}
    return _listed(Counter({n: c for n, c in reasons.items() if n not in ("in", "ok", "out")}))


def card(step: Step) -> dict[str, Any]:
    """What a data step made: {"step", "count", "lines": {name: text}, "flows": [(name, in, out,
    what was dropped)]}; records speak first, then the facts that count things."""
    facts = step.facts
    dropped = Counter(facts.get("dropped", {})) + Counter({n: facts.get(n, 0) for n in COPIES})
    filters = facts.get("quality_filter", {}).items()
    flows = {**facts.get("flows", {}), **{f"quality for {name.upper()}": f for name, f in filters}}
    lines = {name: _listed(counter) for name, counter in _counted(step).items()} | {
        "Tokens": _listed(Counter(facts.get("tokens", {}))),
        "Decided by": _listed(Counter(facts.get("decided_by", {}))),
        "Dropped": _listed(dropped),
        "Code ran in": facts.get("isolation", ""),
    }
    return {
        "step": step,
        "count": len(step.records) or step.manifest["items"],
        "lines": {name: text for name, text in lines.items() if text},
        "flows": [(name, flow["in"], flow["out"], _happened(flow)) for name, flow in flows.items()],
    }


def cards(run: Run) -> list[dict[str, Any]]:
    """A card for each step that made data, whatever its name, in the order of the road."""
    made = (step for step in run.steps if not step.evaluates)
    return [card(step) for step in made if step.kind in DATA_STEPS or step.records]


def asked(step: Step) -> tuple[int, int]:
    """(calls, tokens written) that a step's ledger remembers of whoever answered."""
    path, calls, tokens = step.folder / "ledger.jsonl", 0, 0
    for raw in path.read_bytes().splitlines() if path.exists() else ():
        try:
            line = json.loads(raw)
        except ValueError:  # torn by a kill: the ledger mends itself, and nothing was paid for it
            continue
        if line.get("kind") == "complete":
            calls += 1
            tokens += line["reply"].get("completion_tokens", 0)
    return calls, tokens
