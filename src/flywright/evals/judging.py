"""What the judged benchmarks share: filling a judge's prompt, replaying one, rates with intervals.

A judge's prompt is {"system", "template"}; fields stand in single braces. Ours are in judges.toml;
a benchmark's own file beside its data goes before them, so that its published protocol is kept.
"""

import json
import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from flywright.ask import Completion, Sampling, TooLong
from flywright.errors import UserError
from flywright.evals import responses
from flywright.evals.items import Item, Who
from flywright.records import Conversation, Prompt, parse_lines

Asking = Mapping[str, str]
Metric = dict[str, float]
JUDGING = Sampling(max_tokens=2048)


@cache
def ours() -> dict[str, Asking]:
    """Our own judges' prompts by name."""
    return tomllib.loads(Path(__file__).with_name("judges.toml").read_text("utf-8"))


def filled(asking: Asking, **fields: str) -> Conversation:
    """What the judge is asked; a brace that names no field stays as it is."""
    text = re.sub(r"\{(\w+)\}", lambda found: fields.get(found[1], found[0]), asking["template"])
    return Conversation.of(text, system=asking.get("system", ""))


async def judged(who: Who, asking: Asking, sampling: Sampling = JUDGING, **fields: str) -> str:
    """The judge's words; none where the question does not fit its context."""
    try:
        return (await who.judging.complete(filled(asking, **fields), sampling)).text
    except TooLong:
        return ""


def given(path: Path, prompts: Sequence[Prompt]) -> tuple[list[Prompt], "Replay | None"]:
    """What --judgments gives: a judge that replays our ledger, or the prompts with their rows."""
    ledger = path.name.endswith(".jsonl") and next(parse_lines(path), (0, {}))[1]
    if ledger and {"key", "reply"} <= ledger.keys():
        return list(prompts), Replay(path)
    return responses.judged(path, prompts), None


class Replay:
    """A judge whose every word is in a ledger: nothing else can be asked of it."""

    def __init__(self, path: Path):
        first = next((line for _, line in parse_lines(path)), {})
        if not {"key", "model", "reply"} <= first.keys():
            raise UserError(f"{path}: not the ledger of a judge")
        self.model, self._path = first["model"], path
        self._said = {
            json.dumps([line["asked"]["prompt"], line["asked"]["sampling"]]): line["reply"]
            for _, line in parse_lines(path)
            if line["kind"] == "complete"
        }

    async def complete(self, prompt: Conversation | str, sampling: Sampling) -> Completion:
        """What was said then. Raises UserError where this was never asked."""
        plain = (
            prompt if isinstance(prompt, str) else [[m.role, m.content] for m in prompt.messages]
        )
        reply = self._said.get(json.dumps([plain, sampling.key()]))
        if reply is None:
            raise UserError(f"{self._path}: the judge was never asked this: {str(plain)[-80:]}")
        return Completion.from_dict(reply)

    async def logprobs(self, context: str, continuations: list[str]) -> list[float]:
        """Not kept."""
        raise UserError(f"{self._path}: only what the judge said is replayed")


def rate(hits: float, n: int) -> Metric:
    """A share with its Wilson 95 % interval, which is honest for few items and for 0 and n."""
    z = 1.959963984540054
    middle = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return {
        "mean": hits / n,
        "low": max(0.0, middle - half),
        "high": min(1.0, middle + half),
        "n": n,
    }


def shares(metrics: Sequence[str], items: Sequence[Item]) -> dict[str, Metric]:
    """The `rate` of each of these metrics that has items, over all and by split."""
    counts: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for item in items:
        for name in (
            {item.metric, f"{item.metric} ({item.split})"} if item.metric in metrics else ()
        ):
            counts[name] += 1
            hits[name] += int(item.score)
    return {name: rate(hits[name], counts[name]) for name in sorted(counts)}


def interval(measure: Callable[..., float], *columns: Any, resamples: int = 1000) -> Metric:
    """A measure of some columns of as many rows, with its interval over rows drawn anew."""
    arrays = [np.asarray(column) for column in columns]
    random, n = np.random.default_rng(0), len(arrays[0])
    drawn = (random.integers(0, n, n) for _ in range(resamples))
    values = [measure(*(array[rows] for array in arrays)) for rows in drawn]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return {"mean": float(measure(*arrays)), "low": float(low), "high": float(high), "n": n}
