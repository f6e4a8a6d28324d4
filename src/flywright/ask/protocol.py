"""What can be asked, and of whom: Sampling, Completion, Completer, Reader, Scorer."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from flywright.errors import FlywrightError
from flywright.files import canonical_json
from flywright.records import Conversation

Fault = Literal["rate", "overload", "timeout", "too long", "refused", "malformed", "failed", "bug"]


class AskError(FlywrightError):
    """An answerer failed. `retryable` says whether asking again may help, `fault` what it was.

    rate and overload: asked too often, or too much; timeout: too late; refused: a content filter;
    malformed: not what the wire promises; failed: anything else; bug: not the answerer's fault.
    """

    def __init__(
        self,
        message: str,
        retryable: bool = False,
        retry_after_seconds: float = 0.0,
        fault: Fault = "failed",
    ):
        super().__init__(message)
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds
        self.fault: Fault = fault


class TooLong(AskError):  # noqa: N818 - reads as what happened
    """What was asked does not fit the model's context: this record can never be answered."""

    def __init__(self, message: str):
        super().__init__(message, fault="too long")


class Refused(AskError):  # noqa: N818 - reads as what happened
    """A content filter keeps the answer back: this record will never be answered."""

    def __init__(self, message: str):
        super().__init__(message, fault="refused")


class Stopped(AskError):  # noqa: N818 - not the record's fault: it is left for another run
    """No more calls are made: a budget is spent, or too many of them fail. Exit status 75."""

    exit_status = 75


@dataclass(frozen=True)
class Sampling:
    """How to draw an answer. temperature 0 is greedy; `stop` strings are cut from the text.

    `seed` is the request's own: a hash of run seed, record id and sample index (HOUSE law 3).
    A `stop` that is one control piece (`<extra_id_1>`) is a token that ends the answer. Before
    `min_tokens` no end token is drawn, and no stop string looked for.
    min_p: least probability, as a share of the most likely token's. repetition_penalty: logits of
    tokens in the prompt and the answer, over it where positive, times it where negative.
    end_ids: the tokens that end the answer, if not the model's own. top_logprobs: how many of the
    most likely tokens to tell of. grammar: `json:SCHEMA`, `regex:PATTERN` or `lark:GRAMMAR`, that
    the text keeps to.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    min_tokens: int = 0
    end_ids: tuple[int, ...] | None = None
    top_logprobs: int = 0
    grammar: str = ""

    @property
    def greedy(self) -> bool:
        """True if the most likely token is always taken."""
        return self.temperature == 0.0

    def with_seed(self, seed: int) -> "Sampling":
        """The same sampling with another seed."""
        return replace(self, seed=seed)

    def key(self) -> str:
        """Canonical text, for ledger keys and lineage: newer fields only where they are set."""
        names = [name for name in vars(self) if name in _KEYED or self._is_set(name)]
        return canonical_json({name: getattr(self, name) for name in names})

    def _is_set(self, name: str) -> bool:
        return getattr(self, name) != getattr(type(self), name)


_KEYED = ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop")  # whatever their values
Ids = tuple[int, ...]
Likely = tuple[tuple[int, float], ...]  # token ids with natural log-probabilities, best first


@dataclass(frozen=True)
class Completion:
    """One answer. `finish` is "stop" (an end token or stop string) or "length".

    `token_ids` and `logprobs` (natural log, one each token, the end token included) are empty where
    the answerer does not report them; `prompt_tokens` and `completion_tokens` count for the budget.
    `top` tells, of each token, of the most likely ones in its place, where that was asked for.
    """

    text: str
    finish: str = "stop"
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    top: tuple[Likely, ...] = ()

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Completion":
        """From the fields as JSON keeps them."""
        lists = {key: tuple(value.get(key, ())) for key in ("token_ids", "logprobs")}
        top = tuple(tuple((i, p) for i, p in likely) for likely in value.get("top", ()))
        return cls(**{**value, **lists, "top": top})


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


class Reader(Completer, Protocol):
    """A Completer that also streams its answers, and says how likely given tokens are.

    Prompts may be token ids here: they are taken as they are.
    """

    def stream(
        self, prompt: Conversation | str | Ids, sampling: Sampling
    ) -> AsyncIterator[Completion]:
        """The answer in parts as they are drawn: text, lists and `completion_tokens` tell the new.

        `finish` is "" until the last part. A part's text never ends within a character, nor within
        what may become a stop string. To leave the iterator takes the request back.
        """
        ...

    async def read(self, ids: Sequence[int], top: int = 0) -> Completion:
        """How likely each of `ids` is after those before it; nothing is drawn.

        `logprobs` and `top` have one entry for each of ids[1:]; `token_ids` are `ids`.
        """
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
