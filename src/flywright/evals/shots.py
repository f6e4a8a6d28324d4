"""Few-shot examples: which ones a document gets, and the texts that benchmarks keep fixed.

An example set belongs to a document's place in the benchmark's own file: `--limit`, shards, workers
and the order of asking change nothing. The draws are lm-evaluation-harness's for a whole file (one
`Random(1234)` a task), so the prompts are its prompts byte for byte.
"""

import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from flywright.errors import UserError

SEED = 1234  # of lm-evaluation-harness's few-shot sampler
BETWEEN = "\n\n"


@cache
def fixed(name: str) -> dict[str, Any]:
    """A file of this room's `prompts`: exemplars and tables that belong to a benchmark."""
    return tomllib.loads((Path(__file__).parent / "prompts" / f"{name}.toml").read_text("utf-8"))


def drawn(pool: Sequence[str], shots: int, own: Sequence[str] = ()) -> Iterator[list[str]]:
    """For one document after the other: `shots` texts of the pool.

    `own`: the documents' texts; one more is drawn then, and the document's own left out. Raises
    UserError where the pool is too small.
    """
    if shots and shots + bool(own) > len(pool):
        raise UserError(f"{shots} examples asked for, {len(pool)} to draw from")
    random = Random(SEED)
    while not (shots and own):
        yield random.sample(pool, shots) if shots else []
    for text in own:
        others = [one for one in random.sample(pool, shots + 1) if one != text][:shots]
        if len(others) < shots:  # the document stands there more than once
            others = random.sample([one for one in pool if one != text], shots)
        yield others


def before(examples: Sequence[str], description: str = "") -> str:
    """What stands before the question: the description and the solved examples."""
    return description + "".join(example + BETWEEN for example in examples)
