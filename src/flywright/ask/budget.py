"""Budgets of tokens, money and time: what is spent, what is left, and what it will come to.

`Budget.check()` refuses the call that would go beyond; what was asked for before is kept, and the
same command with a larger budget goes on from there.
"""

import math
import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from flywright.ask.protocol import Stopped


@dataclass(frozen=True)
class Price:
    """Money for a million tokens, of prompts and of answers."""

    prompt: float = 0.0
    answer: float = 0.0

    def of(self, prompt_tokens: int, answer_tokens: int) -> float:
        """Money for so many tokens."""
        return (self.prompt * prompt_tokens + self.answer * answer_tokens) / 1e6


FREE = Price()


@dataclass
class Spent:
    """What calls have cost."""

    calls: int = 0
    tokens: int = 0
    money: float = 0.0

    def add(self, tokens: int, money: float, calls: int = 1) -> None:
        """Some calls more."""
        self.calls += calls
        self.tokens += tokens
        self.money += money


OF_RECORD: ContextVar[Spent | None] = ContextVar("OF_RECORD", default=None)  # being made now


@dataclass
class Budget:
    """The most tokens and money for a dataset, over all runs and workers, and seconds of this run.

    0 = no limit. `mine` counts this process's calls, `others` what it knows of others'.
    """

    tokens: int = 0
    money: float = 0.0
    seconds: float = 0.0
    mine: Spent = field(default_factory=Spent)
    others: Spent = field(default_factory=Spent)
    began: float = field(default_factory=time.monotonic)

    def spent(self, name: str) -> float:
        """Tokens or money, of all; or seconds of this run."""
        if name == "seconds":
            return time.monotonic() - self.began
        return getattr(self.mine, name) + getattr(self.others, name)

    def check(self) -> None:
        """Raises Stopped if nothing is left."""
        for name in ("tokens", "money", "seconds"):
            most = getattr(self, name)
            if most and self.spent(name) >= most:
                raise Stopped(f"the budget of {most:,.10g} {name} is spent; a larger one goes on")

    def pay(self, prompt_tokens: int, answer_tokens: int, price: Price) -> None:
        """One reply has come."""
        cost = (prompt_tokens + answer_tokens, price.of(prompt_tokens, answer_tokens))
        self.mine.add(*cost)
        record = OF_RECORD.get()
        if record is not None:
            record.add(*cost)


@dataclass
class Costs:
    """Mean and spread of what records have cost so far."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """One record more."""
        self.count += 1
        self.total += value
        self.squares += value * value

    def forecast(self, records: int) -> tuple[float, float]:
        """(mean, half width of its 95 % interval) of what so many records more will cost."""
        mean = self.total / max(1, self.count)
        variance = max(0.0, self.squares / max(1, self.count) - mean**2)
        spread = variance * (records + records**2 / max(1, self.count))  # theirs, and the mean's
        return mean * records, 1.96 * math.sqrt(spread)
