"""Answering from weights in this process: an engine that completes, a scorer that rates.

engine.py     Engine, a Reader: answers, their parts, and how likely given tokens are
score.py      RewardScorer, a Scorer
runner.py     the steps: plan, compute, hand out; ranks.py: computed over the ranks of a mesh
scheduler.py  who waits, who runs, what a step computes
pages.py      which pages of the cache are free, shared, remembered
cache.py      keys and values in pages, and attention to them (attention.c, native.py)
packed.py     linear layers as the processor reads them fastest
sampler.py    the next token of every row at once; answer.py: one answer as it grows
grammar.py    answers that keep to a grammar; guess.py: guesses of what comes next
worker.py     the thread that lives while there is work
"""

from flywright.generate.engine import Engine
from flywright.generate.score import RewardScorer

__all__ = ["Engine", "RewardScorer"]
