"""Which documents are worth training on: heuristic quality rules and exact duplicates.

A rule is true of a document that goes; counts by reason are kept.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from flywright.files import digest
from flywright.records import Document

Rule = Callable[[Document, list[str]], bool]  # of a document and its words


def _symbols(document: Document, _words: list[str]) -> bool:
    """Text in a language consists of letters and spaces; code is exempt."""
    text = document.text
    letters = sum(character.isalnum() or character.isspace() for character in text)
    return document.language != "code" and letters < 0.7 * len(text)


RULES: dict[str, Rule] = {
    "too short": lambda document, _: len(document.text.strip()) < 20,
    "repetition": lambda _, words: (  # Gopher's rule, coarse
        len(words) >= 8 and Counter(words).most_common(1)[0][1] > 0.5 * len(words)
    ),
    "symbols": _symbols,
}


def clean(documents: Iterable[Document], dropped: Counter[str]) -> Iterator[Document]:
    """Documents that pass every rule and were not seen before; `dropped` counts the others."""
    seen: set[str] = set()
    for document in documents:
        words = document.text.split()
        reason = next((why for why, rule in RULES.items() if rule(document, words)), None)
        key = digest(" ".join(words).casefold())
        if reason is None and key in seen:
            reason = "duplicate"
        if reason is None:
            seen.add(key)
            yield document
        else:
            dropped[reason] += 1
