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
    """A pair: right or wrong. A rating: an item an attribute. `answer` may hold stored scores."""
    args = prompt.checks[0].args
    stored = json.loads(answer) if answer else {}
    if "rated" in args:
        given = stored or await who.rating.score(prompt.conversation.answered(args["answer"]))
        return [
            item_of(
                prompt,
                f"{name}_error",
                abs(given[name] - true),
                "",
                detail=json.dumps([given[name], true]),
            )
            for name, true in args["rated"].items()
            if true is not None
        ]
    texts = [args["chosen"], args["rejected"]]
    if stored:
        chosen, rejected = (float(stored[side]) for side in ("chosen", "rejected"))
    else:
        scored = [await who.rating.score(prompt.conversation.answered(text)) for text in texts]
        chosen, rejected = map(weighted_reward, scored)
    longer = len(texts[0]) - len(texts[1])
    detail = json.dumps({"chosen": chosen, "rejected": rejected, "longer": longer})
    return [
        item_of(prompt, "pair_accuracy", float(chosen > rejected), "", detail=detail),
        item_of(prompt, "tie", float(chosen == rejected), ""),
        item_of(prompt, "length_only", 0.5 if longer == 0 else float(longer > 0), ""),
    ]


def summary(items: Sequence[Item]) -> Metrics:
    """What are no plain means: sections, calibration, correlations."""
    pairs = [item for item in items if item.metric == "pair_accuracy"]
    found = _sections(pairs) if pairs and pairs[0].task == "rewardbench" else {}
    if pairs:
        details = [json.loads(item.detail) for item in pairs]
        margin = np.array([one["chosen"] - one["rejected"] for one in details])
        longer = np.array([one["longer"] for one in details], dtype=float)
        found["calibration_error"] = interval(calibration_error, margin)
        found["length_correlation"] = interval(pearson, margin, longer)
    for name in ATTRIBUTES:
        both = [json.loads(item.detail) for item in items if item.metric == f"{name}_error"]
        if both:
            found[f"{name}_pearson"] = interval(pearson, *np.array(both).T)
    return found


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
