"""What people are asked, and what they may answer (SPEC 5.7, 10.7).

A Dialogue's last answer is rated: five attributes 0-4, a confidence, a safety verdict. The answers
of a Comparison are judged side by side, whichever was preferred before: on the 6-point scale (0 =
complete failure, 5 = best) with their perceived length. Either may be flagged and skipped.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from flywright.files import digest
from flywright.records import ATTRIBUTES, Comparison, Dialogue, Record

Incorrect = Literal["incorrect", "irrelevant", "missing", "false_premise"]
Incoherent = Literal["repetition", "style_change", "contradiction"]
Level = Annotated[int, Field(strict=True, ge=0, le=4)]
Quality = Annotated[int, Field(strict=True, ge=0, le=5)]
Item = Dialogue | Comparison


class RatingLabel(Record):
    """One annotator's rating of an answer. `confidence` 0-2 is about correctness."""

    helpfulness: Level
    correctness: Level
    coherence: Level
    complexity: Level
    verbosity: Level
    confidence: Annotated[int, Field(strict=True, ge=0, le=2)]
    safe: bool = True
    issues: tuple[Incorrect | Incoherent, ...] = ()

    @property
    def values(self) -> tuple[int, ...]:
        """The five values in the order of ATTRIBUTES."""
        return tuple(getattr(self, name) for name in ATTRIBUTES)


class View(Record):
    """How one of two answers was seen."""

    helpfulness: Quality
    truthfulness: Quality
    length: Literal["too short", "right", "too long"]


class PairLabel(Record):
    """One annotator's views of a comparison's two answers."""

    chosen: View
    rejected: View

    @property
    def preference(self) -> int:
        """1 = `chosen` is better, -1 = `rejected`, 0 = a tie: by the sum of the two axes."""
        ours = self.chosen.helpfulness + self.chosen.truthfulness
        theirs = self.rejected.helpfulness + self.rejected.truthfulness
        return (ours > theirs) - (ours < theirs)


class Skip(Record):
    """Flagged and skipped: the item should not be judged at all."""

    skip: Literal["personal", "language", "coding", "identity"]


Label = RatingLabel | PairLabel | Skip


def group_of(item: Item) -> str:
    """The prompt that is answered; answers to one prompt are judged one after the other."""
    talk = item.conversation
    prompt = talk if isinstance(item, Comparison) else talk.without_answer()
    return digest(prompt.model_dump())


def item_of(value: Any) -> Item:
    """JSON as a Comparison or a Dialogue. Raises pydantic's ValidationError."""
    compares = isinstance(value, dict) and "chosen" in value
    return (Comparison if compares else Dialogue).model_validate(value)


def label_of(item: Item, value: dict[str, Any]) -> Label:
    """JSON as a label for this item. Raises pydantic's ValidationError."""
    kind = PairLabel if isinstance(item, Comparison) else RatingLabel
    return (Skip if "skip" in value else kind).model_validate(value)
