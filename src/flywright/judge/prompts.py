"""The judges' prompts are text files beside this module; here they are filled in."""

from functools import cache
from pathlib import Path
from string import Template

from flywright.records import Conversation


@cache
def _template(name: str) -> Template:
    return Template((Path(__file__).parent / "templates" / f"{name}.txt").read_text("utf-8"))


def fill(name: str, **fields: str) -> str:
    """The named template with its fields. Raises KeyError when a field is missing."""
    return _template(name).substitute(fields)


def transcript(conversation: Conversation) -> str:
    """A conversation as text, one paragraph a message: "User: ...", "Assistant: ..."."""
    return "\n\n".join(f"{m.role.capitalize()}: {m.content}" for m in conversation.messages)
