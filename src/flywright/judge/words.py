"""Words and sentences of a text, by plain rules: no downloads, the same everywhere.

Close to the tokenizers that IFEval's reference uses, but not those: counts near a limit may differ.
"""

import re

_LISTED = (
    "mr mrs ms dr prof sr jr st vs etc e.g i.e cf al inc ltd co corp no fig vol dept est approx"
    " p.s p.p.s u.s u.k u.n a.m p.m ph.d b.a m.a jan feb mar apr jun jul aug sep sept oct nov dec"
    " gen col sgt capt lt rev hon mt ave blvd"
)
_ABBREVIATIONS = frozenset(_LISTED.split())
_END = re.compile(r"[.!?]+[\"'”’)\]*_]*(?=\s|$)|[。！？]+[」』”]*")
_TOKEN = re.compile(r"'?[^\W_]+(?:[-./'][^\W_]+)*")
_CONTRACTION = re.compile(r"(?i)(?<=[a-z])(n't|'(?:s|m|d|ll|re|ve))\b")


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    if not match.group().startswith("."):
        return True
    following = text[match.end() :].lstrip()
    if match.group().startswith(".."):
        return not following[:1].islower()
    before = text[: match.start()]
    last = before.split()[-1].lower().lstrip("(\"'“*[") if before.split() else ""
    if last in _ABBREVIATIONS or re.fullmatch(r"[a-z]", last):
        return False
    at_line_start = before.rstrip(" ").rpartition("\n")[2].strip(" *-#") == last
    if last.isdigit() and at_line_start:
        return False  # the number of a list item: "1. Bread"
    return not following[:1].islower()


def sentences(text: str) -> list[str]:
    """The sentences of a text.

    A sentence ends at . ! ? (with closing quotes) before a blank or the end, or at 。！？; a full
    stop does not end one after a common abbreviation, an initial or the number of a list item, nor
    before a small letter. A line break alone ends nothing.
    """
    found, start = [], 0
    for match in _END.finditer(text):
        if _ends_sentence(text, match):
            found.append(text[start : match.end()].strip())
            start = match.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if re.search(r"\w", sentence)]


def words(text: str) -> list[str]:
    r"""The runs of \w characters."""
    return re.findall(r"\w+", text)


def tokens(text: str) -> list[str]:
    """Words with inner hyphens and dots kept whole; contractions stand apart ("DO" and "N'T")."""
    return _TOKEN.findall(_CONTRACTION.sub(r" \1", text.replace("’", "'")))
