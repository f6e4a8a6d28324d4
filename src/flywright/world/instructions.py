"""Verifiable instructions (SPEC 10.6): how they are worded, read from a text, drawn, and obeyed.

Reading goes by the wordings of instructions.toml; the pipeline's own template file has the same; a
test compares the two. Of the 25 kinds those 13 are read that a short answer can follow.
"""

import re
from collections.abc import Callable
from random import Random
from typing import Any

from flywright.records import Check
from flywright.world.families import as_pattern
from flywright.world.words import listed, table

Args = dict[str, Any]

_TEXTS = table("instructions")
WORDINGS: dict[str, str] = _TEXTS["wordings"]
SHORT_WORDINGS: dict[str, str] = _TEXTS["short"]
SHORT_KINDS = tuple(_TEXTS["drawn"])
LISTS = ("keywords", "forbidden_words")


def short_wording(instruction: Check) -> str:
    """The instruction as a request, in its short form."""
    args = instruction.args.items()
    shown = {name: ", ".join(v) if isinstance(v, list) else v for name, v in args}
    return SHORT_WORDINGS[instruction.kind].format(**shown)


_PATTERNS = [
    (kind, as_pattern(wording, _TEXTS["fields"]))
    for wordings in (WORDINGS, SHORT_WORDINGS)
    for kind, wording in wordings.items()
    if kind in SHORT_WORDINGS
]


def _argument(name: str, text: str) -> Any:
    if name in LISTS:
        return [word.strip().strip('"') for word in text.split(",")]
    return int(text) if text.isdigit() else text


def read_instructions(text: str) -> tuple[tuple[Check, ...], str]:
    """Every instruction found in a text, in order, and the text without them."""
    found: list[tuple[int, Check]] = []
    for kind, pattern in _PATTERNS:
        for match in pattern.finditer(text):
            args = {name: _argument(name, value) for name, value in match.groupdict().items()}
            found.append((match.start(), Check(kind=kind, args=args)))
        text = pattern.sub(lambda match: " " * len(match.group()), text)
    found.sort(key=lambda pair: pair[0])
    return tuple(instruction for _, instruction in found), text


def draw_instructions(rng: Random, count: int) -> list[Check]:
    """`count` instructions that a short answer can follow, of kinds that do not undo each other."""
    if count == 1:
        return [_draw(rng.choice(SHORT_KINDS), rng)]
    groups = {_group(kind): kind for kind in rng.sample(SHORT_KINDS, len(SHORT_KINDS))}
    groups.pop("length_constraints", None)
    return [_draw(kind, rng) for kind in rng.sample(list(groups.values()), count)]


def _group(kind: str) -> str:
    """Kinds of one group undo each other; a bullet cannot stand within quotation marks."""
    return "startend" if kind.endswith("bullet_lists") else kind.split(":")[0]


def _draw(kind: str, rng: Random) -> Check:
    drawn = _TEXTS["drawn"][kind]
    args = {name: rng.choice(v) if isinstance(v, list) else v for name, v in drawn.items()}
    if kind == "keywords:forbidden_words":
        args["forbidden_words"] = rng.sample(listed("qualities animals"), 2)
    if kind == "keywords:existence":
        words = [rng.choice(listed(name)) for name in ("qualities", "things", "colours")]
        args["keywords"] = words[: rng.choice((1, 2))]
    return Check(kind=kind, args=args)


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


def obey_all(answer: str, instructions: tuple[Check, ...]) -> str:
    """The answer changed to follow every instruction, in an order in which none is undone."""
    turns = _TEXTS["turns"]
    for one in sorted(instructions, key=lambda one: turns.get(one.kind, turns["others"])):
        answer = OBEY[one.kind](answer, one.args)
    return answer
