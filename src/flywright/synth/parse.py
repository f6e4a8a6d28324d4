"""Reading replies, without a second call to a model: what is returned stands in the reply.

Raises `Dropped` with the reason where the reply is not what was asked for.
"""

import re

from flywright.synth.flow import Dropped

_NUMBERED = re.compile(r"^[ \t]*\d+[.)][ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
_FENCE = re.compile(r"```[A-Za-z0-9]*\n(.*?)```", re.DOTALL)
_VERDICT = re.compile(r"^\W*verdict\W*(yes|no)\W*$", re.IGNORECASE)
_WRAPPERS = (("**", "**"), ('"', '"'), ("“", "”"))
_POLITE = re.compile(
    r"^(?:(?:thank you|thanks)\b[^.!?\n]*[.!?]|sure[,!.]|of course[,!.]|certainly[,!.]|great[,!.]|"
    r"(?:I'd|I would) be (?:happy|glad) to[^.!?\n]*[.!?]|that(?:'s| is) (?:very )?(?:helpful|great)"
    r"[^.!?\n]*[.!?])\s*",
    re.IGNORECASE,
)


def _unwrapped(text: str) -> str:
    for left, right in _WRAPPERS:
        if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
            return text[len(left) : -len(right)].strip()
    return text


def numbered(reply: str, count: int, cut: bool = False) -> list[str]:
    """The first `count` different elements of a numbered list, each a substring of the reply.

    An element is one line; text around the list is passed over. `cut`: the reply hit its length, so
    that its last line may be half an element. Raises Dropped if there are fewer than `count`.
    """
    if cut:
        reply = reply[: reply.rfind("\n") + 1]
    found: dict[str, str] = {}
    for match in _NUMBERED.finditer(reply):
        element = _unwrapped(match.group(1))
        found.setdefault(element.casefold(), element)
    elements = list(found.values())[:count]
    if len(elements) < count:
        raise Dropped("list too short")
    return elements


def spoken(reply: str, cut: bool = False) -> str:
    """A reply that is one piece of text. Raises Dropped if it is empty or was cut at its length."""
    text = reply.strip()
    if cut:
        raise Dropped("reply cut at its length")
    if not text:
        raise Dropped("empty reply")
    return text


def without_politeness(turn: str) -> str:
    """A user turn without thanks and "sure, I'd be happy to" at its start (SPEC 6.6).

    Raises Dropped if nothing else was said.
    """
    text = _unwrapped(turn.strip())
    text = re.sub(r"^user:\s*", "", text, flags=re.IGNORECASE)
    while (shorter := _POLITE.sub("", text, count=1)) != text:
        text = shorter
    if not text:
        raise Dropped("only politeness")
    return text[0].upper() + text[1:]


def code(reply: str) -> str:
    """The first fenced block, or the whole reply where there is none."""
    match = _FENCE.search(reply)
    text = (match.group(1) if match else reply).strip("\n")
    if not text.strip():
        raise Dropped("no code")
    return text


def asserts(reply: str, count: int) -> list[str]:
    """The first `count` lines that start with `assert`; there may be none."""
    lines = [line.strip().strip("`") for line in reply.splitlines()]
    return [line for line in lines if line.startswith("assert ")][:count]


def begins_yes(reply: str) -> bool:
    """Whether a reply begins with Yes. Raises Dropped if it begins with neither Yes nor No."""
    match = re.match(r"\W*(yes|no)\b", reply, re.IGNORECASE)
    if match is None:
        raise Dropped("neither yes nor no")
    return match[1].lower() == "yes"


def yes(reply: str) -> bool:
    """True if the last line is a verdict of yes; anything else is a no (SPEC 7)."""
    lines = reply.strip().splitlines()
    match = _VERDICT.match(lines[-1].strip()) if lines else None
    return bool(match and match.group(1).lower() == "yes")
