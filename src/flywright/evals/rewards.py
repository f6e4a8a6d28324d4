"""Reward models on pairs and ratings that people made (SPEC 5.5).

A pair is right if the chosen answer gets strictly more. Beside the accuracy of each kind stand the
calibration of sigmoid(margin), how far the margin follows the difference in length, and what the
longer answer would have scored. RewardBench's sections weigh its subsets by their published counts.
HelpSteer2-like ratings give each attribute's Pearson correlation and mean absolute error.
"""

import json
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from flywright.ask import TooLong
from flywright.data.formats import open_records
from flywright.errors import UserError
from flywright.evals.datafiles import NotThere, find
from flywright.evals.items import Item, Metrics, Task, Who, item_of, nobody
from flywright.evals.judging import interval
from flywright.evals.tables import need, placed, talk
from flywright.records import (
    ATTRIBUTES,
    Check,
    Comparison,
    Conversation,
    Lineage,
    Prompt,
    Rating,
    weighted_reward,
)

LLMBAR = {"Natural": "natural"} | {
    f"Adversarial/{name}": f"adver-{name if name[0] == 'G' else name.lower()}"
    for name in ("Neighbor", "GPTInst", "GPTOut", "Manual")
}
FILES = {  # task -> where it may lie, in the data folder or its "preference" folder
    "hhh": ("prometheus_eval/hhh_alignment_eval.json", "hhh.jsonl"),
    "hh_rlhf": ("hh_rlhf/harmless-base/test.jsonl", "hh_rlhf.jsonl"),
    "pandalm": ("pandalm/testset-v1.json", "pandalm.json"),
    "helpsteer2": ("helpsteer2/validation.jsonl", "validation.jsonl", "nemo_aligner/test-rm.jsonl"),
    "reward_pairs": ("pairs.jsonl",),
}
BINS = 10


@cache
def sections() -> dict[str, dict[str, int]]:
    """RewardBench's sections: subset -> how many examples it counts for."""
    return tomllib.loads(Path(__file__).with_name("rewardbench.toml").read_text("utf-8"))


def load_records(task: str, path: Path) -> Iterator[Prompt]:
    """Pairs or ratings of a file in any form that `flywright look` knows."""
    source = find(path, "preference", *FILES[task])
    for number, record in enumerate(open_records(source, Comparison, Rating)):
        yield _prompt(task, f"{task}/{number}", "", record)


def load_rewardbench(path: Path) -> Iterator[Prompt]:
    """RewardBench's rows: prompt (text or messages), chosen, rejected, subset."""
    source = find(path, "rewardbench", "filtered.jsonl", "filtered.json", "rewardbench.jsonl")
    for number, (where, row) in enumerate(placed(source)):
        asked = need(where, row, "prompt")
        said = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
        conversation = talk(where, said)
        pair = _pair(conversation, *(need(where, row, side) for side in ("chosen", "rejected")))
        yield _prompt(
            "rewardbench", f"rewardbench/{row.get('id', number)}", need(where, row, "subset"), pair
        )


def load_llmbar(path: Path) -> Iterator[Prompt]:
    """LLMBar's five sets: input, output_1, output_2, and which of them is better."""
    for name, kind in LLMBAR.items():
        try:
            source = find(path, "preference", f"llmbar/{name}.json", f"{name}.json")
        except NotThere:
            if name == "Natural":
                raise
            continue
        for number, (where, row) in enumerate(placed(source)):
            label = need(where, row, "label")
            if label not in (1, 2):
                raise UserError(f"{where}: label {label!r} is neither 1 nor 2")
            outputs = [need(where, row, f"output_{n}") for n in (label, 3 - label)]
            pair = _pair(Conversation.of(need(where, row, "input")), *outputs)
            yield _prompt("llmbar", f"llmbar/{kind}-{number}", f"llmbar-{kind}", pair)


def _pair(conversation: Conversation, chosen: str, rejected: str) -> Comparison:
    lineage = Lineage(source="people")
    return Comparison(
        id="", conversation=conversation, chosen=chosen, rejected=rejected, lineage=lineage
    )


def _prompt(task: str, name: str, kind: str, record: Comparison | Rating) -> Prompt:
    conversation = record.conversation
    if isinstance(record, Comparison):
        args: dict[str, Any] = {"chosen": record.chosen, "rejected": record.rejected}
    else:
        args = {
            "answer": conversation.last,
            "rated": dict(zip(ATTRIBUTES, record.attributes, strict=True)),
        }
        conversation = conversation.without_answer()
    checks = (Check(kind="reward", args=args),)
    lineage = Lineage(source=task, answer_by="human")
    return Prompt(
        id=name, conversation=conversation, task=task, split=kind, checks=checks, lineage=lineage
    )


async def grade(prompt: Prompt, answer: str, who: Who) -> list[Item]:
    """A pair: right or wrong. A rating: an item an attribute. `answer` may hold stored scores.

    What does not fit the model's context is counted in `too_long`, and a pair of it is wrong.
    """
    args = prompt.checks[0].args
    try:
        items = await (_rating if "rated" in args else _compared)(prompt, answer, who)
    except TooLong:
        wrong = [] if "rated" in args else [item_of(prompt, "pair_accuracy", 0.0, "")]
        return [*wrong, item_of(prompt, "too_long", 1.0, "")]
    return [*items, item_of(prompt, "too_long", 0.0, "")]


async def _rating(prompt: Prompt, answer: str, who: Who) -> list[Item]:
    args = prompt.checks[0].args
    given = await _scores(prompt, args["answer"], who) if not answer else json.loads(answer)
    return [
        item_of(
            prompt, f"{name}_error", abs(given[name] - true), "", detail=f"{given[name]} {true}"
        )
        for name, true in args["rated"].items()
        if true is not None
    ]


async def _compared(prompt: Prompt, answer: str, who: Who) -> list[Item]:
    texts = {side: prompt.checks[0].args[side] for side in ("chosen", "rejected")}
    if answer:
        stored = json.loads(answer)
        scored = {side: float(stored[side]) for side in texts}
    else:
        scored = {s: weighted_reward(await _scores(prompt, text, who)) for s, text in texts.items()}
    longer = len(texts["chosen"]) - len(texts["rejected"])
    margin = scored["chosen"] - scored["rejected"]
    return [
        item_of(prompt, "pair_accuracy", float(margin > 0), "", detail=f"{margin} {longer}"),
        item_of(prompt, "tie", float(margin == 0), ""),
        item_of(prompt, "length_only", 0.5 if longer == 0 else float(longer > 0), ""),
    ]


async def _scores(prompt: Prompt, text: str, who: Who) -> dict[str, float]:
    return await who.rating.score(prompt.conversation.answered(text))


def summary(items: Sequence[Item]) -> Metrics:
    """What are no plain means: sections, calibration, correlations."""
    pairs = [item for item in items if item.metric == "pair_accuracy"]
    found = _sections(pairs) if pairs and pairs[0].task == "rewardbench" else {}
    if pairs and (table := _numbers(pairs)):
        found["calibration_error"] = interval(calibration_error, table[0])
        found["length_correlation"] = interval(pearson, *table)
    for name in ATTRIBUTES:
        if table := _numbers([item for item in items if item.metric == f"{name}_error"]):
            found[f"{name}_pearson"] = interval(pearson, *table)
    return found


def _numbers(items: Sequence[Item]) -> list[list[float]]:
    """The columns of numbers that the items' details hold."""
    rows = [[float(x) for x in item.detail.split()] for item in items if item.detail]
    return [list(column) for column in zip(*rows, strict=True)]


def calibration_error(margin: Any) -> float:
    """Expected calibration error of sigmoid(margin) as the probability that chosen is better.

    A pair is one trial: what the model says of its own favourite against whether it is the chosen
    one, in ten equal bins over 0.5..1.
    """
    sure = 1 / (1 + np.exp(-np.abs(margin)))
    right = margin > 0
    bins = np.minimum(((sure - 0.5) * 2 * BINS).astype(int), BINS - 1)
    gaps = [abs(sure[bins == b].sum() - right[bins == b].sum()) for b in range(BINS)]
    return float(sum(gaps) / len(margin))


def pearson(first: Any, second: Any) -> float:
    """Pearson's correlation; 0 where one side does not vary."""
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _sections(pairs: Sequence[Item]) -> Metrics:
    """RewardBench's sections of which anything is there; and their plain mean where all are."""
    right, kinds = [item.score for item in pairs], [item.split for item in pairs]
    there = [name for name, counts in sections().items() if counts.keys() & set(kinds)]
    found = {name: interval(partial(section_score, [name]), right, kinds) for name in there}
    for name in there:
        found[name]["n"] = sum(kind in sections()[name] for kind in kinds)
    if len(there) == len(sections()):
        found["score"] = interval(partial(section_score, there), right, kinds)
    return found


def section_score(names: Sequence[str], right: Any, kinds: Any) -> float:
    """The mean of these sections' scores, each the mean of its subsets weighed by their counts."""
    subsets = {kind: right[kinds == kind].mean() for kind in set(kinds.tolist())}
    scores = []
    for name in names:
        counts = {kind: n for kind, n in sections()[name].items() if kind in subsets}
        if counts:
            total = sum(n * subsets[kind] for kind, n in counts.items())
            scores.append(total / sum(counts.values()))
    return float(np.mean(scores)) if scores else float("nan")


_LOADERS = {"rewardbench": load_rewardbench, "llmbar": load_llmbar}
_LOADERS |= {name: partial(load_records, name) for name in FILES}
REWARDS = tuple(
    Task(
        name,
        loader,
        ask=nobody,
        grade=grade,
        summary=summary,
        protocol=f"{name}: share of pairs with reward(chosen) > reward(rejected), a tie is wrong",
    )
    for name, loader in _LOADERS.items()
)
