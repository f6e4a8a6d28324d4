"""Which documents are worth training on: heuristic quality rules and exact duplicates.

Each rule answers with the reason why a document goes, or None; counts by reason are kept.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from flywright.files import digest
from flywright.records import Document

Rule = Callable[[Document], str | None]


def too_short(document: Document) -> str | None:
    """Fewer than 20 characters say nothing."""
    return "too short" if len(document.text.strip()) < 20 else None


def repeats_itself(document: Document) -> str | None:
    """Most words are one and the same (Gopher-like repetition rule, coarse)."""
    words = document.text.split()
    if len(words) < 8:
        return None
    most_common = Counter(words).most_common(1)[0][1]
    return "repetition" if most_common > 0.5 * len(words) else None


def mostly_symbols(document: Document) -> str | None:
    """Text in a language consists of letters and spaces; code is exempt."""
    if document.language == "code":
        return None
    text = document.text
    letters = sum(character.isalnum() or character.isspace() for character in text)
    return "symbols" if letters < 0.7 * len(text) else None


RULES: tuple[Rule, ...] = (too_short, repeats_itself, mostly_symbols)


def clean(documents: Iterable[Document], dropped: Counter[str]) -> Iterator[Document]:
    """Documents that pass every rule and were not seen before; `dropped` counts the others."""
    seen: set[str] = set()
    for document in documents:
        reason = next((found for rule in RULES if (found := rule(document))), None)
        key = digest(" ".join(document.text.split()).casefold())
        if reason is None and key in seen:
            reason = "duplicate"
        if reason is None:
            seen.add(key)
            yield document
        else:
            dropped[reason] += 1
