"""How a text is changed so that it follows each of the 25 verifiable instructions of SPEC 10.6."""

import json
import re
from collections.abc import Callable
from typing import Any

from flywright.world.languages import OPENERS

Args = dict[str, Any]
_FILLER = "it is good and it is true"
_MORE = ("It is good.", "It is true.", "It is late now.", "We like it.", "All is well.")


def _plain(text: str) -> str:
    """The first line without its final stop."""
    return text.strip().splitlines()[0].rstrip(".") if text.strip() else "yes"


def _forbid(text: str, args: Args) -> str:
    for word in args["forbidden_words"]:
        text = re.sub(rf"\b{re.escape(word)}\b", "thing", text, flags=re.IGNORECASE)
    return text


def _frequency(text: str, args: Args) -> str:
    word, count = args["keyword"], int(args["frequency"])
    if args["relation"] == "at least":
        return f"{text} " + " ".join([word] * count) + "."
    return re.sub(rf"\b{re.escape(word)}\b", "thing", text, flags=re.IGNORECASE)


def _letters(text: str, args: Args) -> str:
    letter, count = args["letter"].lower(), int(args["let_frequency"])
    if args["let_relation"] == "at least":
        return f"{text} {letter * count}"
    return re.sub(re.escape(letter), "", text, flags=re.IGNORECASE) or "1"


def _sentences(text: str, args: Args) -> str:
    count = int(args["num_sentences"])
    if args["relation"] == "less than":
        return f"{_plain(text).split('. ')[0]}."
    more = [_MORE[i % len(_MORE)] for i in range(count - 1)]
    return " ".join([f"{_plain(text)}.", *more])


def _words(text: str, args: Args) -> str:
    count, words = int(args["num_words"]), text.split()
    if args["relation"] == "less than":
        return text if len(words) < count else " ".join(words[: max(1, count - 1)])
    while len(words) < count:
        words += _FILLER.split()
    return " ".join(words)


def _paragraphs(text: str, count: int, mark: str) -> str:
    return mark.join([text.replace("\n", " "), *(_MORE[i % len(_MORE)] for i in range(count - 1))])


def _nth_paragraph(text: str, args: Args) -> str:
    count, place = int(args["num_paragraphs"]), int(args["nth_paragraph"])
    parts = _paragraphs(text, count, "\n\n").split("\n\n")
    parts[place - 1] = f"{args['first_word']} {parts[place - 1]}"
    return "\n\n".join(parts)


def _bullets(text: str, args: Args) -> str:
    parts = [_plain(text), *(line.rstrip(".") for line in _MORE)]
    return "\n".join(f"* {parts[i % len(parts)]}" for i in range(int(args["num_bullets"])))


def _highlights(text: str, args: Args) -> str:
    words, count = text.split(), int(args["num_highlights"])
    words += _FILLER.split()[: max(0, count - len(words))]
    return " ".join(
        f"*{word}*" if index >= len(words) - count else word for index, word in enumerate(words)
    )


def _sections(text: str, args: Args) -> str:
    mark = args["section_spliter"]
    parts = [text, *_MORE]
    return "\n".join(
        f"{mark} {i + 1}\n{parts[i % len(parts)]}" for i in range(int(args["num_sections"]))
    )


def _capital_words(text: str, args: Args) -> str:
    if args["capital_relation"] == "at least":
        return f"{text} " + " ".join(["YES"] * int(args["capital_frequency"]))
    return text.lower()


def _language(text: str, args: Args) -> str:
    return " ".join(OPENERS[args["language"]][:2]) if args["language"] in OPENERS else text


OBEY: dict[str, Callable[[str, Args], str]] = {
    "keywords:existence": lambda text, args: f"{text} Think of {' and '.join(args['keywords'])}.",
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbid,
    "keywords:letter_frequency": _letters,
    "language:response_language": _language,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": lambda text, args: _paragraphs(
        text, int(args["num_paragraphs"]), "\n***\n"
    ),
    "length_constraints:number_words": _words,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda text, args: (
        f"{text} "
        + " ".join(["[name]", "[place]", "[time]", "[day]"][: int(args["num_placeholders"])])
    ),
    "detectable_content:postscript": lambda text, args: (
        f"{text}\n{args['postscript_marker']} It is good."
    ),
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda text, args: "My answer is yes.",
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": lambda text, args: json.dumps({"answer": text}),
    "detectable_format:title": lambda text, args: (
        f"<<{' '.join(_plain(text).split()[:3])}>>\n{text}"
    ),
    "combination:two_responses": lambda text, args: f"{text}\n******\nOr so: {text}",
    "combination:repeat_prompt": lambda text, args: f"{args['request']}\n{text}",
    "startend:end_checker": lambda text, args: f"{text} {args['end_phrase']}",
    "startend:quotation": lambda text, args: f'"{text.strip().replace(chr(34), "")}"',
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda text, args: text.upper(),
    "change_case:english_lowercase": lambda text, args: text.lower(),
    "punctuation:no_comma": lambda text, args: text.replace(",", ""),
}
_ORDER = (  # content first, then case, then what wraps the whole
    "combination:two_responses",
    "detectable_content:postscript",
    "detectable_format:title",
    "change_case:",
    "punctuation:",
    "startend:end_checker",
    "detectable_format:json_format",
    "startend:quotation",
    "combination:repeat_prompt",
)


def turn(kind: str) -> int:
    """When an instruction is to be obeyed among several: a later one must not undo an earlier."""
    places = [i for i, start in enumerate(_ORDER, start=1) if kind.startswith(start)]
    return places[0] if places else 0
