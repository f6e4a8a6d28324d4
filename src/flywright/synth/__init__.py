"""Synthetic data: flows that turn topics into prompts, prompts into dialogues and comparisons.

A flow is an async function that takes a `Maker` (who answers, the settings, the seed) and records,
and returns records in an order that does not depend on which call ends first. Who answers is handed
in; wrapped in `ask.Ledgered`, a killed flow goes on without paying twice.
"""

from flywright.synth.flow import Dropped
from flywright.synth.maker import Maker
from flywright.synth.settings import GeneticSettings, SynthSettings

__all__ = ["Dropped", "GeneticSettings", "Maker", "SynthSettings"]
