"""Which language a text is in: by script, then by the commonest words. Thin on purpose.

Good for telling the languages of IFEval apart in a sentence or more, not for single words: a text
in Latin letters without any word from the lists (languages.toml) has no known language.
`reference` is what others score IFEval with: langdetect, to which many short or all-capital texts
are in another language than they are.
"""

import re
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path

from flywright.settings import read_toml

_KNOWN = read_toml(Path(__file__).with_name("languages.toml"))
_SCRIPTS = [(letters, codes) for letters, *codes in _KNOWN["scripts"]]
_WORDS = {code: frozenset(words.split()) for code, words in _KNOWN["words"].items()}
_LATIN = [code for code in _WORDS if not any(code in codes for _, codes in _SCRIPTS)]


def _by_words(text: str, codes: list[str]) -> str:
    counts = Counter(re.findall(r"[^\W\d_]+(?:[\u0900-\u0dff]+)?", text))
    if "hi" in codes:  # vowel signs split words for \w; blanks do not
        counts = Counter(re.split(r"[\s।,.!?]+", text))
    scores = {
        code: sum(n for word, n in counts.items() if word in _WORDS[code])
        + 0.5 * sum(text.count(letter) for letter in _KNOWN["own_letters"].get(code, ""))
        for code in codes
    }
    best = max(codes, key=lambda code: scores[code])  # the first of equals
    return best if scores[best] > 0 else ""


def has_letters(text: str) -> bool:
    """True if there is anything to tell a language from."""
    return any(character.isalpha() for character in text)


def detect(text: str) -> str:
    """ISO 639-1 code of the text's language, or "" where it cannot be told."""
    letters = sum(character.isalpha() for character in text)
    lowered = text[:20_000].lower()
    for pattern, codes in _SCRIPTS:
        if len(re.findall(pattern, lowered)) * 3 > min(letters, 20_000):
            return codes[0] if len(codes) == 1 else _by_words(lowered, codes) or codes[0]
    return _by_words(lowered, _LATIN)


@cache
def reference(text: str) -> str:
    """What langdetect says with a fixed seed, "" if it cannot tell; `detect` if not installed."""
    try:
        import langdetect  # pyright: ignore[reportMissingImports]
    except ImportError:
        return detect(text)
    langdetect.DetectorFactory.seed = 0  # it draws at random otherwise
    with suppress(langdetect.LangDetectException):
        return langdetect.detect(text)
    return ""
