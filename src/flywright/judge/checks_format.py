"""Checks of IFEval on the form of an answer: marks, sections, bullets, JSON, beginnings and ends.

Each takes the answer and the instruction's arguments by the names of the data set (SPEC 10.6).
"""

import json
import re

_VERDICTS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def number_placeholders(answer: str, num_placeholders: int) -> bool:
    """At least so many [placeholders]."""
    return len(re.findall(r"\[.*?\]", answer)) >= num_placeholders


def postscript(answer: str, postscript_marker: str) -> bool:
    """A postscript with the marker; P.S. and P.P.S may have blanks after their dots."""
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    pattern = known.get(postscript_marker, re.escape(postscript_marker.lower()))
    return re.search(pattern, answer.lower()) is not None


def number_bullet_lists(answer: str, num_bullets: int) -> bool:
    """Exactly so many lines that begin with * (not **) or -."""
    stars = re.findall(r"^\s*\*[^\*].*$", answer, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", answer, re.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


def constrained_response(answer: str) -> bool:
    """One of the three allowed sentences stands in the answer."""
    return any(verdict in answer for verdict in _VERDICTS)


def number_highlighted_sections(answer: str, num_highlights: int) -> bool:
    """At least so many *highlights* and **highlights** that are not empty."""
    single = re.findall(r"\*[^\n\*]*\*", answer)
    double = re.findall(r"\*\*[^\n\*]*\*\*", answer)
    return sum(bool(text.strip("*").strip()) for text in single + double) >= num_highlights


def multiple_sections(answer: str, section_spliter: str, num_sections: int) -> bool:
    """At least so many sections headed by the word and a number."""
    marks = re.findall(rf"{re.escape(section_spliter)}\s?\d+", answer)
    return len(marks) >= num_sections


def json_format(answer: str) -> bool:
    """The whole answer, without a code fence, is JSON."""
    text = answer.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(answer: str) -> bool:
    """A <<title>> that is not empty."""
    return any(mark.strip("<>").strip() for mark in re.findall(r"<<[^\n]+>>", answer))


def two_responses(answer: str) -> bool:
    """Two different answers with ****** between them; an empty part in the middle fails."""
    parts = [part.strip() for part in answer.split("******")]
    if not all(parts[1:-1]):
        return False
    filled = [part for part in parts if part]
    return len(filled) == 2 and filled[0] != filled[1]


def repeat_prompt(answer: str, prompt_to_repeat: str) -> bool:
    """The answer begins with the prompt, in any case."""
    return answer.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(answer: str, end_phrase: str) -> bool:
    """The answer ends with the phrase, in any case; closing quotes do not count."""
    return answer.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(answer: str) -> bool:
    """The answer stands in double quotes."""
    text = answer.strip()
    return len(text) > 1 and text[0] == '"' == text[-1]


def no_comma(answer: str) -> bool:
    """No comma anywhere."""
    return "," not in answer
