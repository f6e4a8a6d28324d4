"""Reading replies, without a second call to a model: what is returned stands in the reply.

Raises `Dropped` with the reason where the reply is not what was asked for.
"""

import json
import re
from typing import Any

from flywright.synth.flow import Dropped

_NUMBERED = re.compile(r"^[ \t]*\d+[.)][ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
_FENCE = re.compile(r"```[A-Za-z0-9]*\n(.*?)```", re.DOTALL)
_VERDICT = re.compile(r"^\W*verdict\W*(yes|no)\W*$", re.IGNORECASE)
_TURN = re.compile(r"^\W*(user|bot)[*_]*:[*_]*[ \t]*(.*?)[ \t]*$", re.IGNORECASE)
_WRAPPERS = (("**", "**"), ('"', '"'), ("“", "”"))
_POLITE = re.compile(
    r"^(?:(?:thank you|thanks|that(?:'s| is) (?:very |really )?(?:helpful|great|useful))\b"
    r"(?:[^.!?\n]*[.!]|[^.!?,\n]*,(?:\s*(?:but|and|so)\b)?)|"  # a question after it stays
    r"sure[,!.]|of course[,!.]|certainly[,!.]|great[,!.]|"
    r"(?:I'd|I would) be (?:happy|glad) to[^.!?\n]*[.!?])\s*",
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


def json_in(reply: str, kind: type) -> Any:
    """The first JSON list or object (`kind`) that stands in the reply, whatever is around it."""
    for found in re.finditer(r"\[" if kind is list else r"\{", reply):
        try:
            return json.JSONDecoder().raw_decode(reply, found.start())[0]
        except ValueError:
            continue
    raise Dropped("no JSON in the reply")


def talk(reply: str, least: int) -> list[str]:
    """The turns of a talk in lines of "user:" and "bot:", the user's first, up to the bot's last.

    Raises Dropped if they do not alternate or there are fewer than `least`.
    """
    turns: list[tuple[str, str]] = []
    for line in filter(str.strip, reply.splitlines()):
        if found := _TURN.match(line):
            turns.append((found.group(1).lower(), found.group(2)))
        elif turns:
            turns[-1] = (turns[-1][0], f"{turns[-1][1]}\n{line.strip()}".strip())
    turns = turns[: len(turns) // 2 * 2]
    if any(who != ("user", "bot")[n % 2] or not said for n, (who, said) in enumerate(turns)):
        raise Dropped("turns do not alternate")
    if len(turns) < least:
        raise Dropped("talk too short")
    return [said for _, said in turns]


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
