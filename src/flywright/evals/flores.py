"""FLORES: translation out of Chinese after eight examples, by sentencepiece BLEU (SPEC 4.2).

Its own files are read: devtest/LANGUAGE.devtest (scored), dev/LANGUAGE.dev (examples), and its
SentencePiece model, whose pieces BLEU counts. As sacrebleu's spBLEU: n-grams up to four,
clipped, over all sentences at once, a zero count smoothed by halves, and the brevity penalty.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from sentencepiece import SentencePieceProcessor

from flywright.data.rows import read_lines
from flywright.errors import UserError
from flywright.evals import words
from flywright.evals.datafiles import NotThere, find, problem
from flywright.evals.items import Item, Metrics, Task, item_of
from flywright.evals.judging import interval
from flywright.evals.shots import before, drawer, fixed
from flywright.records import Check, Prompt
from flywright.sandbox import Sandbox

NAME, ORDERS, SOURCE = "flores", range(1, 5), "zh"
PIECES = ("flores101_sacrebleu_tokenizer_spm.model", "sentencepiece.bpe.model", "spm.model")
_pieces: dict[str, Path] = {}  # by hash, of those that a load has found


def load(path: Path, shots: int = 8) -> Iterator[Prompt]:
    """Every sentence into every language that is there, by language."""
    names: dict[str, list[str]] = fixed("languages")["flores"]
    coder = find(path, NAME, *PIECES)
    _pieces[coder.name] = coder
    source, examples = _sentences(path, names[SOURCE], "devtest"), []
    for to, called in names.items():
        try:
            target = [] if to == SOURCE else _sentences(path, called, "devtest")
            examples = _examples(path, names, to) if target and shots else []
        except NotThere:
            continue
        if target and len(target) != len(source):
            raise UserError(f"{path}: {len(source)} sentences of {SOURCE}, {len(target)} of {to}")
        draw = drawer(examples, shots)
        for number, (text, truth) in enumerate(zip(source, target, strict=False)):
            asked = f"{names[SOURCE][0]}: {text}\n{called[0]}:"
            args = {"context": before(draw(asked)) + asked, "answer": truth, "stop": ""}
            check = Check(kind="continuation", args={**args, "pieces": coder.name})
            prompt = problem(NAME, f"{NAME}/{to}/{number}", text, check)
            yield prompt.model_copy(update={"split": f"{SOURCE}-{to}"})


def _sentences(path: Path, called: Sequence[str], part: str) -> list[str]:
    """Of the first of a language's codes (101's, 200's) whose file is there."""
    forms = [
        f"{folder}{part}/{code}.{part}"
        for code in called[1:]
        for folder in ("", f"{NAME}101_dataset/")
    ]
    return list(read_lines(find(path, NAME, *forms)))


def _examples(path: Path, names: dict[str, list[str]], to: str) -> list[str]:
    pairs = zip(*(_sentences(path, names[one], "dev") for one in (SOURCE, to)), strict=True)
    return [f"{names[SOURCE][0]}: {text}\n{names[to][0]}: {truth}" for text, truth in pairs]


@cache
def _coder(name: str) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_file=str(_pieces[name]))


def counts(said: Sequence[str], truth: Sequence[str]) -> list[int]:
    """[length, the truth's length, then matches and total of each order]."""
    found = [len(said), len(truth)]
    for n in ORDERS:
        mine, theirs = (
            Counter(zip(*(one[i:] for i in range(n)), strict=False)) for one in (said, truth)
        )
        found += [(mine & theirs).total(), mine.total()]
    return found


def bleu(rows: Any) -> float:
    """BLEU in per cent of the sum of such counts."""
    length, wanted, *both = np.asarray(rows).sum(axis=0).tolist()
    if not any(both[::2]):
        return 0.0
    logs, halved = 0.0, 1.0
    for matches, total in zip(both[::2], both[1::2], strict=True):
        if not total:
            return 0.0
        halved *= 1 if matches else 2
        logs += math.log((matches or 1 / halved) / total) / len(ORDERS)
    return 100 * math.exp(logs + min(0.0, 1 - wanted / length))


async def score(prompt: Prompt, answer: str, _sandbox: Sandbox | None) -> list[Item]:
    """A sentence's own BLEU (which says little), with the counts that the corpus' is made of."""
    args = prompt.checks[0].args
    pieces = [
        _coder(args["pieces"]).encode(text, out_type=str)
        for text in (answer.strip(), args["answer"])
    ]
    found = counts(*pieces)
    more = {"truth": args["answer"], "detail": json.dumps(found)}
    return [item_of(prompt, "sentence_bleu", bleu([found]), answer, **more)]


def summary(items: Sequence[Item]) -> Metrics:
    """spBLEU of each direction with its interval over sentences, and their mean."""
    rows: dict[str, list[list[int]]] = {}
    for item in items:
        rows.setdefault(item.split, []).append(json.loads(item.detail))
    found = {f"spbleu ({split})": interval(bleu, of) for split, of in rows.items()}
    mean = {
        key: float(np.mean([one[key] for one in found.values()])) for key in ("mean", "low", "high")
    }
    return found | {"spbleu": mean | {"n": len(items)}}


FLORES = Task(
    NAME,
    load,
    score,
    ask=words.ask,
    stop=("\n",),
    summary=summary,
    shots=8,
    protocol="out of Chinese, examples from dev, greedy continuation; BLEU of FLORES's own pieces",
)
