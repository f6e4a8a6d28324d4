"""Simulated people who rate answers, after HelpSteer2's rules (SPEC 5.6).

Each annotator sees the true attributes through a taste of their own and some noise. At least three
rate an answer; two more do if their helpfulness differs by more than 2; the three most in agreement
are kept and their mean, rounded, is the label. A prompt stays only if, for every answer, the kept
helpfulness values differ by at most 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from flywright.records import ATTRIBUTES

FIRST, EXTRA, KEPT, WIDEST = 3, 2, 3, 2
NOISE, CARELESS_NOISE, CARELESS_SHARE, TASTE = 0.45, 1.6, 0.1, 0.25
POOL_SIZE = 30

Scores = tuple[int, ...]  # one annotator's five attributes, 0-4, in the order of ATTRIBUTES


@dataclass(frozen=True)
class Annotator:
    """One person: a constant lean on each attribute, and how much their hand shakes."""

    leans: tuple[float, ...]
    noise: float

    def rate(self, truth: Sequence[float], rng: Random) -> Scores:
        """Five whole numbers from 0 to 4."""
        seen = (
            value + lean + rng.gauss(0, self.noise)
            for value, lean in zip(truth, self.leans, strict=True)
        )
        return tuple(min(4, max(0, round(value))) for value in seen)


def spread(annotations: Sequence[Scores]) -> int:
    helpfulness = [scores[0] for scores in annotations]
    return max(helpfulness) - min(helpfulness)


def most_agreeing(annotations: Sequence[Scores]) -> list[Scores]:
    """The three annotations closest together: in helpfulness first, then over all attributes."""

    def apart(group: Sequence[Scores]) -> tuple[int, int]:
        columns = zip(*group, strict=True)
        return spread(group), sum(max(column) - min(column) for column in columns)

    return list(min(combinations(annotations, KEPT), key=apart))


def label(annotations: Sequence[Scores]) -> Scores:
    columns = zip(*annotations, strict=True)
    return tuple(round(sum(column) / len(column)) for column in columns)


class Pool:
    """All annotators of one world."""

    def __init__(self, seed: int):
        rng = Random(seed)
        self.annotators = [
            Annotator(
                tuple(rng.gauss(0, TASTE) for _ in ATTRIBUTES),
                CARELESS_NOISE if rng.random() < CARELESS_SHARE else NOISE,
            )
            for _ in range(POOL_SIZE)
        ]

    def annotations(self, truth: Sequence[float], rng: Random) -> list[Scores]:
        """Three annotations, or five where the first three disagree."""
        asked = rng.sample(self.annotators, FIRST + EXTRA)
        given = [annotator.rate(truth, rng) for annotator in asked[:FIRST]]
        if spread(given) > WIDEST:
            given += [annotator.rate(truth, rng) for annotator in asked[FIRST:]]
        return given

    def rate(self, truth: Sequence[float], rng: Random) -> Scores | None:
        """The label of one answer, or None if even the closest three disagree too much."""
        kept = most_agreeing(self.annotations(truth, rng))
        return None if spread(kept) > WIDEST else label(kept)
