"""How a text is changed to follow those verifiable instructions that a short answer can follow.

Of the 25 kinds of SPEC 10.6 these are the 13 that the flows draw; another kind is not read.
"""

import re
from collections.abc import Callable
from typing import Any

Args = dict[str, Any]
_FILLER = "it is good and it is true"
_MORE = ("It is good.", "It is true.", "It is late now.", "We like it.", "All is well.")


def _plain(text: str) -> str:
    """The first line without its final stop."""
    return text.strip().splitlines()[0].rstrip(".") if text.strip() else "yes"


def _without(text: str, words: list[str]) -> str:
    for word in words:
        text = re.sub(rf"\b{re.escape(word)}\b", "thing", text, flags=re.IGNORECASE)
    return text


def _words(text: str, args: Args) -> str:
    count, words = int(args["num_words"]), text.split()
    if args["relation"] == "less than":
        return text if len(words) < count else " ".join(words[: max(1, count - 1)])
    while len(words) < count:
        words += _FILLER.split()
    return " ".join(words)


def _bullets(text: str, args: Args) -> str:
    parts = [_plain(text), *(line.rstrip(".") for line in _MORE)]
    return "\n".join(f"* {parts[i % len(parts)]}" for i in range(int(args["num_bullets"])))


def _highlights(text: str, args: Args) -> str:
    count = int(args["num_highlights"])
    words = re.split(r"(\s+)", text.strip())  # with what stands between them: lines stay lines
    for filler in _FILLER.split()[: max(0, count - len(words[::2]))]:
        words += [" ", filler]
    for place in range(len(words) - 1, len(words) - 2 * count, -2):
        words[place] = f"*{words[place]}*"
    return "".join(words)


OBEY: dict[str, Callable[[str, Args], str]] = {
    "keywords:existence": lambda text, args: f"{text} Think of {' and '.join(args['keywords'])}.",
    "keywords:forbidden_words": lambda text, args: _without(text, args["forbidden_words"]),
    "length_constraints:number_words": _words,
    "detectable_content:number_placeholders": lambda text, args: " ".join(
        [text, *["[name]", "[place]", "[time]", "[day]"][: int(args["num_placeholders"])]]
    ),
    "detectable_content:postscript": lambda text, args: (
        f"{text}\n{args['postscript_marker']} It is good."
    ),
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:title": lambda text, args: (
        f"<<{' '.join(_plain(text).split()[:3])}>>\n{text}"
    ),
    "startend:end_checker": lambda text, args: f"{text} {args['end_phrase']}",
    "startend:quotation": lambda text, args: f'"{text.strip().replace(chr(34), "")}"',
    "change_case:english_capital": lambda text, args: text.upper(),
    "change_case:english_lowercase": lambda text, args: text.lower(),
    "punctuation:no_comma": lambda text, args: text.replace(",", ""),
}
_ORDER = (  # lines, then content, then case, then what wraps the whole
    "detectable_format:number_bullet_lists",
    "",  # all that stands nowhere else
    "detectable_content:postscript",
    "detectable_format:title",
    "startend:end_checker",
    "change_case:",
    "punctuation:",
    "startend:quotation",
)


def turn(kind: str) -> int:
    """When an instruction is to be obeyed among several: a later one must not undo an earlier."""
    places = [i for i, start in enumerate(_ORDER) if start and kind.startswith(start)]
    return places[0] if places else _ORDER.index("")
