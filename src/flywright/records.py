"""The nouns that cross from room to room as JSONL: messages, prompts, ratings, comparisons.

    Message -> Conversation -> Prompt (a conversation that awaits an answer, with its truth as data)
                            -> Dialogue (a conversation to learn from)
                            -> Rating (a conversation with five attributes)
    Prompt + two answers    -> Comparison (with both rewards and every vote)

Every record carries a `Lineage`, so that it can be traced to its prompt, model, sampling, judges.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from flywright.errors import UserError
from flywright.files import atomic_file, digest

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
REWARD_WEIGHTS = (0.3, 0.74, 0.46, 0.47, -0.33)  # the model card's weighted sum (SPEC 5.4)

Role = Literal["system", "user", "assistant"]


class Record(BaseModel):
    """Base of all records: immutable, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Document(Record):
    """A text to pretrain on, its collection, and its language ("en", "de", ... or "code")."""

    text: str
    source: str
    language: str = "en"

    @property
    def id(self) -> str:
        """A hash of source and text."""
        return record_id(self.source, self.text)

    @property
    def group(self) -> str:
        """The blend's group: "en", "code", or "other" for all other languages (SPEC 2)."""
        return self.language if self.language in ("en", "code") else "other"


class Message(Record):
    """One turn. Its content is always plain text: it can never become a control token."""

    role: Role
    content: str


class Conversation(Record):
    """Messages in order: an optional system message, then user and assistant in turn.

    An empty system message and none are the same conversation; the empty one is dropped.
    """

    messages: tuple[Message, ...]

    @field_validator("messages")
    @classmethod
    def _drop_empty_system(cls, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        empty = messages and messages[0].role == "system" and not messages[0].content
        return messages[1:] if empty else messages

    @model_validator(mode="after")
    def _turns_alternate(self) -> "Conversation":
        turns = self.messages[1:] if self.system else self.messages
        if not turns:
            raise ValueError("a conversation needs at least one user message")
        for index, message in enumerate(turns):
            expected = "user" if index % 2 == 0 else "assistant"
            if message.role != expected:
                raise ValueError(f"turn {index} is {message.role!r}, expected {expected!r}")
        return self

    @property
    def system(self) -> str:
        """The system text, or an empty string."""
        return next((m.content for m in self.messages[:1] if m.role == "system"), "")

    @property
    def turns(self) -> tuple[Message, ...]:
        """The messages without the system message."""
        return self.messages[1:] if self.system else self.messages

    @property
    def awaits_answer(self) -> bool:
        """True if the last message is the user's."""
        return self.messages[-1].role == "user"

    @property
    def last(self) -> str:
        """The last message's text."""
        return self.messages[-1].content

    def answered(self, text: str) -> "Conversation":
        """This conversation with an assistant message more."""
        return self.then("assistant", text)

    def then(self, role: Role, text: str) -> "Conversation":
        """This conversation with one more message."""
        return Conversation(messages=(*self.messages, Message(role=role, content=text)))

    def without_answer(self) -> "Conversation":
        """This conversation without its last (assistant) message."""
        return Conversation(messages=self.messages[:-1])

    @classmethod
    def of(cls, *contents: str, system: str = "") -> "Conversation":
        """User and assistant texts in turn, starting with the user."""
        roles: tuple[Role, Role] = ("user", "assistant")
        messages = [Message(role=roles[i % 2], content=text) for i, text in enumerate(contents)]
        return cls(messages=(Message(role="system", content=system), *messages))


class Verdict(Record):
    """One judge's vote on a pair or an answer.

    `preference`: 1 = the first answer, -1 = the second, 0 = neither; `score` if the judge gave one.
    """

    judge: str
    preference: int = Field(default=0, ge=-1, le=1)
    score: float | None = None
    detail: str = ""


class Lineage(Record):
    """Where a record came from. `answer_by`: who wrote the answer; simulated humans are human."""

    source: str
    answer_by: Literal["model", "human", "program", ""] = ""
    model: str = ""
    sampling: str = ""
    template: str = ""
    seed: int = 0
    parents: tuple[str, ...] = ()
    scores: dict[str, float] = {}
    verdicts: tuple[Verdict, ...] = ()
    filters: tuple[str, ...] = ()


class Check(Record):
    """One program-verifiable condition on an answer; `judge` knows the kinds.

    kinds: "exact" {answer}, "number" {answer}, "code" {entry_point, tests}, or an IFEval id
    such as "punctuation:no_comma" with its arguments (SPEC 10.6).
    """

    kind: str
    args: dict[str, Any] = {}


class Prompt(Record):
    """A conversation that awaits an answer, with its ground truth as data.

    `task` names the family ("sort_words", "open_qa", ...); `task_id` identifies the item by its
    arguments, so that overlap between training and held-out can be checked; `split` is "near",
    "far", or "" for training; `checks` all have to hold for an answer to be right.
    """

    id: str
    conversation: Conversation
    task: str = ""
    task_id: str = ""
    split: str = ""
    checks: tuple[Check, ...] = ()
    lineage: Lineage

    @model_validator(mode="after")
    def _ends_with_user(self) -> "Prompt":
        if not self.conversation.awaits_answer:
            raise ValueError("a prompt must end with a user message")
        return self


class Dialogue(Record):
    """A conversation to learn from: the last message is the assistant's."""

    id: str
    conversation: Conversation
    task: str = ""
    lineage: Lineage

    @model_validator(mode="after")
    def _ends_with_assistant(self) -> "Dialogue":
        if self.conversation.awaits_answer:
            raise ValueError("a dialogue must end with an assistant message")
        return self


class Rating(Record):
    """A conversation whose last answer was rated; a missing attribute is None (masked in training).

    Attribute values are 0-4 (SPEC 5.7).
    """

    id: str
    conversation: Conversation
    helpfulness: float | None = None
    correctness: float | None = None
    coherence: float | None = None
    complexity: float | None = None
    verbosity: float | None = None
    lineage: Lineage

    @property
    def attributes(self) -> tuple[float | None, ...]:
        """The five values in the order of ATTRIBUTES."""
        return tuple(getattr(self, name) for name in ATTRIBUTES)


class Comparison(Record):
    """Two answers to one prompt, which was preferred, and both rewards (RPO needs them).

    A missing reward is None; RPO refuses such a pair rather than assume a default. `judge` is who
    decided ("truth", "llm", "reward" or a person); `strength` is how much better they found it (1-3
    in HelpSteer2-Preference); lineage.model wrote the chosen answer.
    """

    id: str
    conversation: Conversation
    chosen: str
    rejected: str
    chosen_reward: float | None = None
    rejected_reward: float | None = None
    strength: float | None = None
    judge: str = ""
    task: str = ""
    rejected_model: str = ""
    lineage: Lineage


AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


def record_id(*parts: Any) -> str:
    """A record's id: a hash of what makes it (prompt, model, sample ...), 12 hex characters."""
    return digest(*parts, length=12)


def weighted_reward(attributes: dict[str, float]) -> float:
    """The card's unnormalised weighted sum of the five attributes (SPEC 5.4)."""
    return sum(w * attributes[name] for name, w in zip(ATTRIBUTES, REWARD_WEIGHTS, strict=True))


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> int:
    """Write records one a line, atomically; returns how many."""
    count = 0
    with atomic_file(Path(path)) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(record.model_dump_json(exclude_defaults=True) + "\n")
            count += 1
    return count


def fault_of(error: Any) -> str:
    """The first of pydantic's complaints: "where: what"."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "record"
    return f"{where}: {first['msg']}"


def raw_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(line number, offset in bytes, line) of each non-empty line. Raises UserError."""
    path, offset = Path(path), 0
    try:
        stream = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from None
    with stream:
        for number, raw in enumerate(stream, start=1):
            if raw.strip():
                yield number, offset, raw
            offset += len(raw)


def parse_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) of each non-empty line of a JSONL file.

    Raises UserError with file:line for a missing file, bad UTF-8 or bad JSON.
    """
    for number, _, raw in raw_lines(path):
        try:
            yield number, json.loads(raw.decode("utf-8"))
        except ValueError as error:
            raise UserError(f"{path}:{number}: not valid JSON ({error})") from None


def read_jsonl(path: Path, kind: type[AnyRecord]) -> Iterator[AnyRecord]:
    """Records of one kind, in file order. Raises UserError with file:line at the first bad line."""
    for number, value in parse_lines(path):
        try:
            yield kind.model_validate(value)
        except ValidationError as error:
            message = f"{path}:{number}: not a {kind.__name__}: {fault_of(error)}"
            raise UserError(message) from None
