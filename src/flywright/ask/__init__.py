"""Asking is a protocol: who answers is handed in from the top floor.

`Completer` and `Scorer` are what synth, judge and evals know of all that answers. The engine in
this process, an HTTP endpoint and the `Scripted` fake all keep them.
"""

from flywright.ask.budget import Budget, Price
from flywright.ask.crew import Crew
from flywright.ask.ledger import Ledger, Ledgered, LedgeredScorer
from flywright.ask.limits import Limited, Load, Patience, gather, ordered
from flywright.ask.mixed import Mixed
from flywright.ask.protocol import (
    AskError,
    Completer,
    Completion,
    Ids,
    Reader,
    Refused,
    Sampling,
    Scorer,
    Stopped,
    TooLong,
)
from flywright.ask.scripted import Scripted, ScriptedScorer

__all__ = [
    "AskError", "Budget", "Completer", "Completion", "Crew", "Ids", "Ledger", "Ledgered",
    "LedgeredScorer", "Limited", "Load", "Mixed", "Patience", "Price", "Reader", "Refused",
    "Sampling", "Scorer", "Scripted", "ScriptedScorer", "Stopped", "TooLong", "gather", "ordered",
]  # fmt: skip
