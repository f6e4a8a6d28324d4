"""What was said, out of the ways that files write it: message lists, control tokens, transcripts.

Content in a list of messages is plain text. `from_marks` is the door for strings that carry the
turns themselves (SPEC 11.1, 12.3, 12.4): there control tokens part the turns, and none may be left.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from flywright.records import Conversation, Message, Role

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant"),
    "system": "system",
}
# NeMo's own marks are the control characters; Nemotron's are the extra ids
_SYSTEM = re.compile(r"(?:<extra_id_0>|\x00)System(?:\n|\Z)")
_TURN = re.compile(r"\n?(?:<extra_id_1>|\x11)(User|Assistant)(?:\n|\Z)")
_END = re.compile(r"(?:\n?(?:<extra_id_[12]>|\x11|\x12)|\n)\Z")
_MARK = re.compile(r"<extra_id_[012]>|[\x00\x11\x12]")


class LeftOut(Exception):  # noqa: N818 - not an error: the row is counted under this reason
    """A row that is as its form says, but gives no record."""


def conversation(messages: Iterable[Message]) -> Conversation:
    """Raises LeftOut where user and assistant do not speak in turn."""
    try:
        return Conversation(messages=tuple(messages))
    except ValueError:
        raise LeftOut("not in turn") from None


def dialogue(messages: Sequence[Message]) -> Conversation:
    """Up to the last answer. Raises LeftOut where there is none, or a turn is empty."""
    last = max((n for n, m in enumerate(messages) if m.role == "assistant"), default=-1)
    if last < 0:
        raise LeftOut("no answer")
    kept = messages[: last + 1]
    if not all(message.content.strip() for message in kept if message.role != "system"):
        raise LeftOut("an empty turn")
    return conversation(kept)


def system(row: dict[str, Any]) -> list[Message]:
    return [Message(role="system", content=row["system"])] if row.get("system") else []


def from_messages(listed: Sequence[dict[str, Any]]) -> list[Message]:
    """Of {"role", "content"} or {"from", "value"}. Raises LeftOut for tools, pictures, weights."""
    found: list[Message] = []
    for said in listed:
        own = "role" in said
        name, content = said["role" if own else "from"], said["content" if own else "value"]
        role = _ROLES.get(name.lower())
        if role is None or said.get("tool_calls"):
            raise LeftOut("tools are used" if role else f"a turn of {name!r}")
        if said.get("weight") == 0:
            raise LeftOut("an answer of weight 0")
        if isinstance(content, list) and all(part["type"] == "text" for part in content):
            content = "".join(part["text"] for part in content)
        if not isinstance(content, str):
            raise LeftOut("not only text")
        found.append(Message(role=role, content=content))
    return found


def from_marks(text: str, closed: bool = False) -> list[Message]:
    """Of a string whose turns are parted by control tokens; what comes before them is the user's.

    closed: the last answer ends here, with or without its mark. Raises ValueError where a turn
    still holds a control token: it could only become plain text.
    """
    head, *rest = _TURN.split(_END.sub("", text) if closed else text)
    found = list(zip(rest[::2], rest[1::2], strict=True))
    if opening := _SYSTEM.match(head):
        found.insert(0, ("system", head[opening.end() :]))
    elif head:
        found.insert(0, ("user", head))
    if not closed and found[-1:] == [("Assistant", "")]:
        found.pop()  # the prompt's end: here the answer begins
    return [Message(role=_ROLES[name.lower()], content=plain(content)) for name, content in found]


def from_text(text: str) -> list[Message]:
    """Of a whole conversation as one text: a transcript, or with control tokens."""
    return from_transcript(text) if text.startswith("\n\nHuman:") else from_marks(text, closed=True)


def plain(content: str) -> str:
    """Raises ValueError if a control token is in it."""
    if mark := _MARK.search(content):
        raise ValueError(f"a turn holds the control token {mark[0]!r}")
    return content


def answer(text: str) -> str:
    """An answer without its end of turn ("\\n<extra_id_1>")."""
    return plain(_END.sub("", text) if _MARK.search(text) else text)


def from_transcript(text: str, before: str = "\n\n") -> list[Message]:
    """Of "Human: ... Assistant: ...", each name at the begin of a paragraph."""
    parts = re.split(before + r"(Human|Assistant):", text)[1:]
    said = zip(parts[::2], parts[1::2], strict=True)
    roles: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
    return [Message(role=roles[name], content=content.strip()) for name, content in said]
