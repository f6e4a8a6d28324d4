"""What filters compare of a record: its parts, its text, normalised, and its words."""

import re
import unicodedata
from typing import TypeVar

from flywright.records import Comparison, Dialogue, Document, Lineage, Prompt, Rating

AnyRecord = Document | Prompt | Dialogue | Comparison | Rating
AnyText = TypeVar("AnyText", Document, Prompt, Dialogue, Comparison)

# words, signs of scripts that part no words, and operators: 3 + 4 is not 3 - 4
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[-+*/=<>%^]")


def normal(text: str) -> str:
    """The text without differences of case, width, spacing and end punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).rstrip(".!?")


def tokens(text: str) -> list[str]:
    """Words and operators of the normalised text."""
    return _TOKEN.findall(normal(text))


def segments_of(record: AnyRecord) -> list[str]:
    """A document's text, or each message, and both answers of a pair."""
    if isinstance(record, Document):
        return [record.text]
    answers = [record.chosen, record.rejected] if isinstance(record, Comparison) else []
    return [*(message.content for message in record.conversation.messages), *answers]


def text_of(record: AnyRecord) -> str:
    """All segments, one after the other."""
    return "\n".join(segments_of(record))


def noted(lineage: Lineage, filter_name: str, **scores: float) -> Lineage:
    """The lineage of a record that passed a filter."""
    filters, scores = (*lineage.filters, filter_name), {**lineage.scores, **scores}
    return lineage.model_copy(update={"filters": filters, "scores": scores})
