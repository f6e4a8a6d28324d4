"""Words and sentences of a text, by plain rules: no downloads, the same everywhere.

Sentences follow Kiss and Strunk (2006), whose Punkt is IFEval's reference, with short word lists of
our own in the place of its trained ones; counts differ only after rare abbreviations.
"""

import re
from pathlib import Path

from flywright.settings import read_toml

_KNOWN = {
    name: frozenset(words.split())
    for name, words in read_toml(Path(__file__).with_suffix(".toml")).items()
}
# an end mark, then a blank, the end, or a mark that belongs to no word
_END = re.compile(r"[.!?](?=[)\";}\]*:@'({\[!?]|\s+\S)|[。！？](?=\S)")
_CLOSING = re.compile(r"[\"')\]}]+(?=\s|--|$)|[!?]+(?=\s|$)|[」』”]+")
_TOKEN = re.compile(r"'?[^\W_]+(?:[-./'][^\W_]+)*")
_CONTRACTION = re.compile(r"(?i)(?<=[a-z])(n't|'(?:s|m|d|ll|re|ve))\b")


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    """Whether the mark ends a sentence; only after some words does a full stop end none."""
    if match.group() != ".":
        return True
    last = text[: match.start()].rsplit(None, 1)[-1:] or [""]
    word = last[0].lower().lstrip("(\"'“*[")
    following = text[match.end() :].lstrip()
    small = following[:1].islower()
    if word.isdigit() or word.endswith("."):
        return not small and following[:1] not in tuple(",;:.!?")
    if re.fullmatch(r"[^\W\d_]", word):
        return not following[:1].isalpha() and word not in _KNOWN["abbreviations"]
    known = {word, word.rpartition("-")[2]} & _KNOWN["abbreviations"]
    if known or (re.fullmatch(r"[a-z]\.[a-z]", word) and word not in _KNOWN["not_abbreviations"]):
        starter = re.match(r"\w+", following)
        return not small and bool(starter) and starter[0].lower() in _KNOWN["starters"]
    return True


def sentences(text: str) -> list[str]:
    """The sentences of a text.

    One ends at . ! ? before a blank or a mark (closing quotes and brackets belong to it, asterisks
    to what follows), or at 。！？; a full stop ends none after an initial or a common abbreviation,
    nor after a number or dots before a small letter. "1." of a list is one. A line break alone ends
    nothing.
    """
    found, start = [], 0
    for match in _END.finditer(text):
        if match.start() >= start and _ends_sentence(text, match):
            closing = _CLOSING.match(text, match.end())
            end = closing.end() if closing else match.end()
            found.append(text[start:end].strip())
            start = end
    found.append(text[start:].strip())
    return [sentence for sentence in found if sentence]


def words(text: str) -> list[str]:
    r"""The runs of \w characters."""
    return re.findall(r"\w+", text)


def tokens(text: str) -> list[str]:
    """Words with inner hyphens and dots kept whole; contractions stand apart ("DO" and "N'T")."""
    return _TOKEN.findall(_CONTRACTION.sub(r" \1", text.replace("’", "'")))
