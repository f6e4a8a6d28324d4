"""What people are asked, and what they may answer (SPEC 5.7, 10.7).

A rating is five attributes 0-4, a confidence and a safety verdict on one answer; a comparison is
two answers on the 6-point scale (0 = complete failure, 5 = best) with their perceived length.
Either may be flagged and skipped instead.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from flywright.records import ATTRIBUTES, Conversation, Lineage, Record

Kind = Literal["rating", "comparison"]
SkipReason = Literal["", "personal", "language", "coding", "identity"]
Issue = Literal[
    "incorrect",
    "irrelevant",
    "missing",
    "false_premise",
    "repetition",
    "style_change",
    "contradiction",
]
Level = Annotated[int, Field(strict=True, ge=0, le=4)]
Confidence = Annotated[int, Field(strict=True, ge=0, le=2)]
Quality = Annotated[int, Field(strict=True, ge=0, le=5)]
Length = Literal["too short", "right", "too long"]


class Item(Record):
    """Something to judge. A rating item's conversation ends with the answer, a comparison's not.

    Items of one `group` (answers to the same prompt) are shown one after the other.
    """

    id: str
    kind: Kind
    group: str
    conversation: Conversation
    first: str = ""
    second: str = ""
    first_model: str = "first"
    second_model: str = "second"
    task: str = ""
    lineage: Lineage

    @model_validator(mode="after")
    def _has_what_is_judged(self) -> "Item":
        if self.conversation.awaits_answer != (self.kind == "comparison"):
            raise ValueError("a rating needs an answer at the end, a comparison a question")
        return self


class RatingLabel(Record):
    """One annotator's rating, or the reason for skipping. `confidence` 0-2 is about correctness."""

    helpfulness: Level | None = None
    correctness: Level | None = None
    coherence: Level | None = None
    complexity: Level | None = None
    verbosity: Level | None = None
    confidence: Confidence | None = None
    safe: bool = True
    issues: tuple[Issue, ...] = ()
    skip: SkipReason = ""

    @model_validator(mode="after")
    def _whole_or_skipped(self) -> "RatingLabel":
        missing = [n for n in (*ATTRIBUTES, "confidence") if getattr(self, n) is None]
        if missing and not self.skip:
            raise ValueError(f"{', '.join(missing)}: not answered")
        return self

    @property
    def values(self) -> tuple[int, ...]:
        """The five values in the order of ATTRIBUTES; only for a label that was not skipped."""
        return tuple(int(getattr(self, name)) for name in ATTRIBUTES)


class View(Record):
    """How one of two answers was seen."""

    helpfulness: Quality
    truthfulness: Quality
    length: Length


class PairLabel(Record):
    """One annotator's comparison, in the item's own order; or the reason for skipping."""

    first: View | None = None
    second: View | None = None
    skip: SkipReason = ""

    @model_validator(mode="after")
    def _whole_or_skipped(self) -> "PairLabel":
        if not self.skip and (self.first is None or self.second is None):
            raise ValueError("both answers must be judged")
        return self

    @property
    def preference(self) -> int:
        """1 = the first is better, -1 = the second, 0 = a tie: by the sum of the two axes."""
        if self.first is None or self.second is None:
            return 0
        ours = self.first.helpfulness + self.first.truthfulness
        theirs = self.second.helpfulness + self.second.truthfulness
        return (ours > theirs) - (ours < theirs)

    def swapped(self) -> "PairLabel":
        """The same label with the two answers in the other order."""
        return PairLabel(first=self.second, second=self.first, skip=self.skip)


Label = RatingLabel | PairLabel
