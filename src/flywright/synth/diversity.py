"""Variety: near copies turned away while prompts are made, and how varied a set of answers is."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from flywright.records import Dialogue
from flywright.synth.filters import Pool, normal


class Novelty:
    """Takes texts that are no near copies of those it took before; `counts` tells of the others.

    A topic's quota is asked for again, at most `rounds` times in all, for what was turned away.
    """

    def __init__(self, threshold: float, rounds: int = 3):
        self.rounds = rounds
        self.counts: Counter[str] = Counter()
        self._pool = Pool(threshold)
        self._seen: set[str] = set()

    def takes(self, text: str) -> bool:
        """Whether the text is new; a new one is remembered."""
        key = normal(text)
        copy = "copies" if key in self._seen else "near copies"
        if key in self._seen or self._pool.likest(text):
            self.counts[copy] += 1
            return False
        self._seen.add(key)
        self._pool.add(text)
        self.counts["taken"] += 1
        return True


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams of words over all n-grams (Li et al. 2016); 0.0 where there are none."""
    grams = [
        tuple(words[start : start + n])
        for words in (text.split() for text in texts)
        for start in range(len(words) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else 0.0


def diversity(dialogues: Sequence[Dialogue], most: int = 1000) -> dict[str, Any]:
    """{"distinct_1", "distinct_2", "reward": {mean, std, p10, p90}} of the assistant's turns.

    distinct-n falls with the size of a set, so it is taken over the first `most` dialogues; rewards
    are those that the reward filter left in the lineage.
    """
    some = dialogues[:most]
    turns = [turn.content for one in some for turn in one.conversation.turns[1::2]]
    rewards = [one.lineage.scores["reward"] for one in some if "reward" in one.lineage.scores]
    found: dict[str, Any] = {f"distinct_{n}": distinct(turns, n) for n in (1, 2)}
    if rewards:
        low, high = np.quantile(rewards, [0.1, 0.9])
        spread = {"mean": np.mean(rewards), "std": np.std(rewards), "p10": low, "p90": high}
        found["reward"] = {name: float(value) for name, value in spread.items()}
    return found
