"""What can be asked, and of whom: Sampling, Completion, Completer, Scorer."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from flywright.errors import FlywrightError
from flywright.files import canonical_json
from flywright.records import Conversation


class AskError(FlywrightError):
    """An answerer failed. `retryable` says whether asking again may help."""

    def __init__(self, message: str, retryable: bool = False, retry_after_seconds: float = 0.0):
        super().__init__(message)
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds


class TooLong(AskError):  # noqa: N818 - reads as what happened
    """What was asked does not fit the model's context: this record can never be answered."""


@dataclass(frozen=True)
class Sampling:
    """How to draw an answer. temperature 0 is greedy; `stop` strings are cut from the text.

    `seed` is the request's own: a hash of run seed, record id and sample index (HOUSE law 3).
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()

    @property
    def greedy(self) -> bool:
        """True if the most likely token is always taken."""
        return self.temperature == 0.0

    def with_seed(self, seed: int) -> "Sampling":
        """The same sampling with another seed."""
        return replace(self, seed=seed)

    def key(self) -> str:
        """Canonical text, for ledger keys and lineage."""
        return canonical_json(asdict(self))


@dataclass(frozen=True)
class Completion:
    """One answer. `finish` is "stop" (an end token or stop string) or "length".

    `token_ids` and `logprobs` (natural log, one each token, the end token included) are empty where
    the answerer does not report them; `prompt_tokens` and `completion_tokens` count for the budget.
    """

    text: str
    finish: str = "stop"
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Completion":
        """From the fields as JSON keeps them."""
        lists = {key: tuple(value.get(key, ())) for key in ("token_ids", "logprobs")}
        return cls(**{**value, **lists})


class Completer(Protocol):
    """Anything that continues a conversation (or a raw text).

    `model` names it with its revision: it goes into ledger keys and lineage.
    """

    @property
    def model(self) -> str:
        """Name and revision."""
        ...

    async def complete(self, prompt: Conversation | str, sampling: Sampling) -> Completion:
        """The answer to a conversation that awaits one, or the continuation of a raw prompt."""
        ...

    async def logprobs(self, context: str, continuations: list[str]) -> list[float]:
        """Sum of log-probabilities of each continuation after the raw context."""
        ...


class Scorer(Protocol):
    """Anything that rates the last answer of a conversation."""

    @property
    def model(self) -> str:
        """Name and revision."""
        ...

    async def score(self, conversation: Conversation) -> dict[str, float]:
        """The five attributes by name (records.ATTRIBUTES), on the 0-4 scale."""
        ...
