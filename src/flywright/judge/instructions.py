"""The 25 verifiable instructions of IFEval by id, strict and loose (SPEC 10.6).

    follows("punctuation:no_comma", {}, "No commas here.")                    # True

No downloads: sentences and words are told by our own plain rules (judge.words), languages by those
of judge.language, or, to score as others do, by its `reference`.
"""

from collections.abc import Callable
from typing import Any

from flywright.errors import UserError
from flywright.judge import checks_format as form
from flywright.judge import checks_words as word
from flywright.judge.language import detect

CHECKERS: dict[str, Callable[..., bool]] = {
    "keywords:existence": word.existence,
    "keywords:frequency": word.frequency,
    "keywords:forbidden_words": word.forbidden_words,
    "keywords:letter_frequency": word.letter_frequency,
    "language:response_language": word.response_language,
    "length_constraints:number_sentences": word.number_sentences,
    "length_constraints:number_paragraphs": word.number_paragraphs,
    "length_constraints:number_words": word.number_words,
    "length_constraints:nth_paragraph_first_word": word.nth_paragraph_first_word,
    "detectable_content:number_placeholders": form.number_placeholders,
    "detectable_content:postscript": form.postscript,
    "detectable_format:number_bullet_lists": form.number_bullet_lists,
    "detectable_format:constrained_response": form.constrained_response,
    "detectable_format:number_highlighted_sections": form.number_highlighted_sections,
    "detectable_format:multiple_sections": form.multiple_sections,
    "detectable_format:json_format": form.json_format,
    "detectable_format:title": form.title,
    "combination:two_responses": form.two_responses,
    "combination:repeat_prompt": form.repeat_prompt,
    "startend:end_checker": form.end_checker,
    "startend:quotation": form.quotation,
    "change_case:capital_word_frequency": word.capital_word_frequency,
    "change_case:english_capital": word.english_capital,
    "change_case:english_lowercase": word.english_lowercase,
    "punctuation:no_comma": form.no_comma,
}


TELLING = {  # where the language decides
    "language:response_language",
    "change_case:english_capital",
    "change_case:english_lowercase",
}


def follows(
    instruction: str, args: dict[str, Any], answer: str, tell: Callable[[str], str] = detect
) -> bool:
    """Strict: the answer is not empty and the check holds. tell: the language of a text.

    Raises UserError for an unknown id or arguments that do not fit it. Arguments of None are left
    out: some copies of the data set hold every name for every instruction.
    """
    checker = CHECKERS.get(instruction)
    if checker is None:
        raise UserError(f"unknown instruction {instruction!r}; known: {', '.join(CHECKERS)}")
    given = {name: value for name, value in args.items() if value is not None}
    if instruction in TELLING:
        given["tell"] = tell
    if not answer.strip():
        return False
    try:
        return bool(checker(answer, **given))
    except TypeError as error:
        raise UserError(f"instruction {instruction}: {error}") from None


def variants(answer: str) -> list[str]:
    """The eight forms of the loose variant: without first line, last line, both, and asterisks."""
    lines = answer.split("\n")
    cut = [answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return cut + [text.replace("*", "") for text in cut]


def follows_loosely(
    instruction: str, args: dict[str, Any], answer: str, tell: Callable[[str], str] = detect
) -> bool:
    """Loose: any of the eight variants follows strictly."""
    return any(follows(instruction, args, text, tell) for text in variants(answer))
