"""Checks of IFEval that count or look for words and letters: keywords, lengths, language, case.

Each takes the answer and the instruction's arguments by the names of the data set (SPEC 10.6).
"""

import re
from collections.abc import Callable

from flywright.errors import UserError
from flywright.judge.language import detect, has_letters
from flywright.judge.words import sentences, tokens, words

Tell = Callable[[str], str]  # the language of a text


def holds(count: int, relation: str, limit: int) -> bool:
    """`count` is "less than" or "at least" `limit`. Raises UserError for any other relation."""
    if relation == "less than":
        return count < limit
    if relation == "at least":
        return count >= limit
    raise UserError(f'relation {relation!r}: expected "less than" or "at least"')


def _occurrences(pattern: str, answer: str) -> int:
    try:
        return len(re.findall(pattern, answer, re.IGNORECASE))
    except re.error:
        return answer.lower().count(pattern.lower())


def existence(answer: str, keywords: list[str]) -> bool:
    """Every keyword is found, in any case; keywords are patterns, as in the reference."""
    return all(_occurrences(keyword, answer) for keyword in keywords)


def frequency(answer: str, keyword: str, relation: str, frequency: int) -> bool:
    """The keyword is found often enough, or less often than the limit."""
    return holds(_occurrences(keyword, answer), relation, frequency)


def forbidden_words(answer: str, forbidden_words: list[str]) -> bool:
    """No forbidden word stands in the answer as a whole word."""
    return not any(_occurrences(rf"\b{word}\b", answer) for word in forbidden_words)


def letter_frequency(answer: str, letter: str, let_relation: str, let_frequency: int) -> bool:
    """The letter, in either case, stands there often enough, or less often than the limit."""
    return holds(answer.lower().count(letter.strip().lower()), let_relation, let_frequency)


def response_language(answer: str, language: str, tell: Tell = detect) -> bool:
    """The answer is in the language; one without letters passes, as in the reference."""
    return not has_letters(answer) or tell(answer) == language


def number_sentences(answer: str, relation: str, num_sentences: int) -> bool:
    """The number of sentences (our own rule: judge.words)."""
    return holds(len(sentences(answer)), relation, num_sentences)


def number_words(answer: str, relation: str, num_words: int) -> bool:
    r"""The number of \w+ runs."""
    return holds(len(words(answer)), relation, num_words)


def number_paragraphs(answer: str, num_paragraphs: int) -> bool:
    """Exactly so many paragraphs between lines of ***; an empty one in the middle fails."""
    parts = re.split(r"\s?\*\*\*\s?", answer)
    inner_empty = any(not part.strip() for part in parts[1:-1])
    return not inner_empty and sum(bool(part.strip()) for part in parts) == num_paragraphs


def nth_paragraph_first_word(
    answer: str, num_paragraphs: int, nth_paragraph: int, first_word: str
) -> bool:
    """Exactly so many paragraphs between blank lines, and the nth begins with the word."""
    parts = answer.split("\n\n")
    count = sum(bool(part.strip()) for part in parts)
    if not 1 <= nth_paragraph <= count or not parts[nth_paragraph - 1].strip():
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    start = re.split(r"[.,?!'\"]", word, maxsplit=1)[0].lower()
    return count == num_paragraphs and start == first_word.lower()


def capital_word_frequency(answer: str, capital_relation: str, capital_frequency: int) -> bool:
    """The number of words in capitals only."""
    count = sum(token.isupper() for token in tokens(answer))
    return holds(count, capital_relation, capital_frequency)


def english_capital(answer: str, tell: Tell = detect) -> bool:
    """All letters are capitals, and the text is not in another known language."""
    return answer.isupper() and tell(answer) in ("en", "")


def english_lowercase(answer: str, tell: Tell = detect) -> bool:
    """All letters are small, and the text is not in another known language."""
    return answer.islower() and tell(answer) in ("en", "")
