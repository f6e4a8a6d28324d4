"""Asking is a protocol: who answers is handed in from the top floor.

`Completer` and `Scorer` are what synth, judge and evals know of all that answers. The engine in
this process, an HTTP endpoint and the `Scripted` fake all keep them.
"""

from flywright.ask.ledger import Ledger, Ledgered, LedgeredScorer
from flywright.ask.limits import Limited, gather
from flywright.ask.protocol import (
    AskError,
    Completer,
    Completion,
    Ids,
    Reader,
    Sampling,
    Scorer,
    TooLong,
)
from flywright.ask.scripted import Scripted, ScriptedScorer

__all__ = [
    "AskError",
    "Completer",
    "Completion",
    "Ids",
    "Ledger",
    "Ledgered",
    "LedgeredScorer",
    "Limited",
    "Reader",
    "Sampling",
    "Scorer",
    "Scripted",
    "ScriptedScorer",
    "TooLong",
    "gather",
]
