"""A dataset's card: Markdown with the header that the Hugging Face hub reads, from the records.

What the records say of themselves is counted; what was dropped comes from the counts handed in, and
from a dropped.jsonl beside them. Synthetic share: HOUSE 7's, of records with an answer.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from flywright.errors import UserError
from flywright.files import write_text
from flywright.report.trace import record_files, rows

MARK = "<!-- written by flywright from the records; changes are lost when it is written again -->"
UNCOMPARED = "**Not compared with any benchmark:** `flywright synth filter` does that."
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "n>10M")
MOST, BAR = 20, 40


def _kind(record: Mapping[str, Any]) -> str:
    if "chosen" in record:
        return "comparison"
    if "conversation" not in record:
        return "document"
    if "helpfulness" in record:
        return "rating"
    last = record["conversation"]["messages"][-1]["role"]
    return "dialogue" if last == "assistant" else "prompt"


class Tally:
    """Counts of distinct records, their lengths in characters and their rewards."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.lengths: list[int] = []
        self.rewards: list[float] = []
        self.files: dict[str, int] = {}
        self.total = self.answered = self.by_model = 0
        self._seen: set[int] = set()

    def read(self, label: str, path: Path) -> None:
        """Count a file; of dropped.jsonl only the reasons."""
        for line, _, value in rows(path):
            if "reason" in value and "record" in value:
                self.counts["dropped"][value["reason"]] += 1
            elif "text" in value or (
                "id" in value and "lineage" in value and "metric" not in value
            ):
                self.files[label] = self.files.get(label, 0) + 1
                try:
                    self.add(value)
                except (AttributeError, IndexError, KeyError, TypeError):
                    raise UserError(f"{path}:{line}: not a record of ours") from None

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one record, if it is met for the first time."""
        name = hash(record.get("id") or record["text"])
        if name in self._seen:
            return
        self._seen.add(name)
        self.total += 1
        kind, lineage = _kind(record), record.get("lineage", {"source": record.get("source", "")})
        said = {
            "Kinds": kind,
            "Tasks": record.get("task", ""),
            "Sources": lineage.get("source", ""),
            "Answers by": lineage.get("answer_by", ""),
            "Models": lineage.get("model", ""),
            "Prompt templates": lineage.get("template", ""),
        }
        for what, one in said.items():
            self.counts[what][one] += 1
        self.counts["Filters passed"].update(lineage.get("filters", ()))
        if kind in ("dialogue", "comparison"):
            self.answered += 1
            self.by_model += lineage.get("answer_by") == "model"
        last = record.get("text") or record.get("chosen")
        self.lengths.append(len(last or record["conversation"]["messages"][-1]["content"]))
        reward = record.get("chosen_reward", lineage.get("scores", {}).get("reward"))
        if reward is not None:
            self.rewards.append(reward)


def bars(title: str, values: Sequence[float], edges: Any = 10) -> list[str]:
    """A histogram in lines of text, by numpy's bins; nothing where there are no values."""
    if not values:
        return []
    counts, ends = np.histogram(values, edges)
    drawn = ["█" * math.ceil(BAR * count / counts.max()) for count in counts]
    lines = [
        f"{f'{low:,.4g} to {high:,.4g}':>20}  {bar:<{BAR}}  {count:,}"
        for count, bar, (low, high) in zip(counts, drawn, pairwise(ends), strict=True)
    ]
    return ["", f"## {title}", "", "```", *lines, "```"]


def _table(title: str, counts: Counter[str], total: int) -> list[str]:
    named = [(name or "(not said)", count) for name, count in counts.most_common()]
    if not any(name for name in counts):
        return []
    lines = [f"| `{name}` | {count:,} | {count / total:.1%} |" for name, count in named[:MOST]]
    rest = sum(count for _, count in named[MOST:])
    lines += [f"| and {len(named) - MOST} more | {rest:,} | {rest / total:.1%} |"] if rest else []
    return ["", f"### {title}", "", "| | records | share |", "|---|--:|--:|", *lines]


def _header(name: str, tally: Tally, licences: Mapping[str, str]) -> list[str]:
    said = {licences.get(source, "") for source in tally.counts["Sources"]}
    licence = said.pop() if len(said) == 1 else ""
    size = SIZES[min(max(len(str(tally.total)) - 3, 0), len(SIZES) - 1)]
    tags = ["flywright", *(["synthetic"] if tally.by_model else [])]
    files = [
        line
        for label in tally.files
        for line in (
            f"- config_name: {json.dumps(label.removesuffix('.jsonl').replace('/', '-'))}",
            f"  data_files: {json.dumps(label)}",
        )
    ]
    return [
        *("---", f"pretty_name: {json.dumps(name)}", f"license: {licence.lower() or 'other'}"),
        *("task_categories:", "- text-generation", "size_categories:", f"- {size}"),
        *("tags:", *(f"- {tag}" for tag in tags), *(["configs:", *files] if files else []), "---"),
    ]


def _dropped(flows: Mapping[str, Mapping[str, int]], tally: Tally) -> list[str]:
    reasons = [
        f"| {flow} | {name.removeprefix('dropped: ')} | {count:,} |"
        for flow, counts in flows.items()
        for name, count in counts.items()
        if count and (name.startswith("dropped: ") or name == "failed")
    ]
    if not reasons:
        counted = tally.counts["dropped"].most_common()
        reasons = [f"| filter | {name} | {count:,} |" for name, count in counted]
    if not reasons:
        return []
    return ["", "## Dropped", "", "| step | reason | records |", "|---|---|--:|", *reasons]


def write_card(
    target: Path,
    files: Sequence[tuple[str, Path]],
    flows: Mapping[str, Mapping[str, int]] | None = None,
    licences: Mapping[str, str] | None = None,
    contamination: str = "",
) -> Tally:
    """Write the card of (label, path) record files to `target`; returns what was counted.

    flows: how each flow's records ended (in, out, "dropped: REASON"). licences: source -> licence.
    Raises UserError where `target` is there and not a card, and for files without a record.
    """
    if target.exists() and MARK not in target.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{target}: is there and not a card of ours; move it first")
    tally, licences = Tally(), licences or {}
    for label, path in files:
        tally.read(label, path)
    here = target.resolve()
    name = here.parent.name if here.name == "README.md" else here.name.removesuffix(".card.md")
    share = f"{tally.by_model / tally.answered:.1%}" if tally.answered else "none has an answer"
    sourced = sorted(tally.counts["Sources"])
    lines = [
        *(*_header(name, tally, licences), MARK, "", f"# {name}", ""),
        f"{tally.total:,} distinct records in {len(tally.files)} files.",
        *("", "| file | records |", "|---|--:|"),
        *(f"| {label} | {count:,} |" for label, count in tally.files.items()),
        *("", f"**Synthetic share:** {share}"),
        f"({tally.by_model:,} of {tally.answered:,} records with an answer have a model's).",
        *("", "## Contamination", "", contamination or UNCOMPARED),
        *("", "## Licences", "", "| source | licence |", "|---|---|"),
        *(
            f"| `{source or '(not said)'}` | {licences.get(source, 'not stated')} |"
            for source in sourced
        ),
        *("", "## What the records say of themselves"),
        *(
            line
            for title, counts in tally.counts.items()
            if title != "dropped"
            for line in _table(title, counts, max(tally.total, 1))
        ),
    ]
    doubling = [0.0, *2.0 ** np.arange(3, math.log2(max([8, *tally.lengths])) + 1)]
    lines += bars("Length of the last message, in characters", tally.lengths, doubling)
    lines += bars("Reward of the answer", tally.rewards)
    write_text(target, "\n".join([*lines, *_dropped(flows or {}, tally), ""]))
    return tally


def card_of_folder(folder: Path, licences: Mapping[str, str]) -> Tally:
    """Write FOLDER/README.md over all record files below it. Raises UserError for none."""
    files, _ = record_files(folder)
    tally = write_card(folder / "README.md", files, licences=licences)
    if not tally.total:
        raise UserError(f"{folder}: no records in any JSONL file, so the card is empty")
    return tally
