"""Answering from weights in this process: an engine that completes, a scorer that rates.

engine.py     Engine, a Completer: continuous batching over one model
scheduler.py  who waits and who runs; the running rows as tensors
cache.py      keys and values of the running rows
sampler.py    the next token of every row at once
score.py      RewardScorer, a Scorer; log-probabilities of given tokens
worker.py     the thread that lives while there is work
"""

from flywright.generate.engine import Engine
from flywright.generate.score import RewardScorer

__all__ = ["Engine", "RewardScorer"]
