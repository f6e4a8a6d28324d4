"""Few-shot examples: which ones a document gets, and the texts that benchmarks keep fixed.

Drawn examples belong to the document: a hash of its own text draws them, so that its place in a
file, `--limit`, shards, workers and the order of asking change nothing.
"""

import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from flywright.errors import UserError
from flywright.files import seed_from

SEED = 1234
BETWEEN = "\n\n"


@cache
def fixed(name: str) -> dict[str, Any]:
    """A file of this room's `prompts`: exemplars and tables that belong to a benchmark."""
    return tomllib.loads((Path(__file__).parent / "prompts" / f"{name}.toml").read_text("utf-8"))


def drawer(pool: Sequence[str], shots: int) -> Callable[..., list[str]]:
    """draw(text, own=""): `shots` of the pool's texts for a document, its own one never.

    The document's text alone decides, not its place, nor the pool's order. Raises UserError where
    the pool is too small.
    """
    known = {*pool}
    kept = sorted(known)

    def draw(text: str, own: str = "") -> list[str]:
        more = shots + (own in known)
        if more > len(kept):
            raise UserError(f"{shots} examples asked for, {len(kept)} to draw from")
        drawn = Random(seed_from(SEED, text)).sample(kept, more)
        return [one for one in drawn if one != own][:shots]

    return draw


def before(examples: Sequence[str], description: str = "") -> str:
    """What stands before the question: the description and the solved examples."""
    return description + "".join(example + BETWEEN for example in examples)
