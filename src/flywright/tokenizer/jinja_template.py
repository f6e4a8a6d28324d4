"""A chat template's text: which of it the template wrote, and where each message's words stand.

Templates are other people's programs: they run in Jinja's immutable sandbox, with what they may
expect (trimmed blocks, loop controls, `raise_exception`, `tojson`, `strftime_now`, the generation
tag). The day of `strftime_now` is fixed: a prompt that changes at midnight would make a resumed run
another one than the undisturbed.
"""

import json
import re
import secrets
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from flywright.errors import UserError
from flywright.records import Message

TODAY = date(2024, 7, 26)
# for each message its role and the space before and after its words; None where it has no words
Edges = tuple[tuple[str, str, str | None], ...]


class _Generation(Extension):
    """`{% generation %}` marks an answer for others; here the mask comes from the laws."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own convention

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _environment() -> ImmutableSandboxedEnvironment:
    extensions = [_Generation, "jinja2.ext.loopcontrols"]
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=extensions
    )
    made.filters["tojson"] = _to_json
    made.globals |= {"raise_exception": _raise, "strftime_now": TODAY.strftime}
    return made


def _edges(message: Message) -> tuple[str, str, str | None]:
    words = message.content.strip()
    before, _, after = message.content.partition(words) if words else (message.content, "", None)
    return message.role, before, after


class JinjaTemplate:
    """A template with the special tokens' texts that it may use. Raises UserError with `where`."""

    def __init__(self, source: str, variables: dict[str, str], where: str):
        self._where = where
        self._variables = variables
        self._nonce = f"w{secrets.token_hex(8)}w"
        self._place = re.compile(f"({self._nonce}[0-9]+x)")
        self.parts = lru_cache(maxsize=1024)(self._parts)
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise self.refusal(f"is not one ({error})", "mend it") from None

    def refusal(self, fault: str, remedy: str) -> UserError:
        return UserError(f"{self._where}: the chat template {fault}; {remedy}")

    def _fill(self, messages: list[dict[str, str]], opens: bool) -> str:
        given = {"messages": messages, "add_generation_prompt": opens}
        try:
            return self._template.render(**self._variables, **given, tools=None, documents=None)
        except Exception as error:  # whatever a program of other people's may do
            roles = ", ".join(message["role"] for message in messages)
            fault = f"refuses a conversation of {roles} ({error})"
            raise self.refusal(
                fault, "leave the system message out, or change the template"
            ) from None

    def _parts(self, edges: Edges, opens: bool) -> tuple[str, ...]:
        """The template's own text before, between and after the messages' words."""
        places = [f"{self._nonce}{index}x" for index in range(len(edges))]
        messages = [
            {"role": role, "content": before if after is None else before + place + after}
            for place, (role, before, after) in zip(places, edges, strict=True)
        ]
        found = self._place.split(self._fill(messages, opens))
        expected = [place for place, edge in zip(places, edges, strict=True) if edge[2] is not None]
        if found[1::2] != expected:
            wrong = next((places.index(one) for one in expected if found.count(one) != 1), 0)
            fault = f"leaves out, repeats or moves message {wrong + 1} ({edges[wrong][0]})"
            raise self.refusal(fault, "such a conversation cannot be trained on with it")
        return tuple(found[::2])

    def split(
        self, messages: Sequence[Message], opens: bool = False, checked: bool = True
    ) -> tuple[tuple[str, ...], list[str]]:
        """(the template's parts, the messages' words): they alternate, a part first and last.

        Space at the edge of a message belongs to the parts, where the template may have removed
        it; a message of space alone has no words. `checked`: refuse a template that rewrites words.
        """
        parts = self.parts(tuple(_edges(message) for message in messages), opens)
        words = [words for message in messages if (words := message.content.strip())]
        if checked:
            text = self._fill([message.model_dump() for message in messages], opens)
            if text != joined(parts, words):
                fault = "rewrites what a message says (as by dropping its thoughts)"
                raise self.refusal(fault, "write the message as the template leaves it")
        return parts, words

    def rewritten(self, messages: Sequence[Message]) -> tuple[tuple[str, ...], list[str]]:
        """`split` of a prompt, its words as the template leaves them (thoughts dropped, say)."""
        parts, words = self.split(messages, opens=True, checked=False)
        rest = self._fill([message.model_dump() for message in messages], True)
        found: list[str] = []
        for part, said in zip(parts, ["", *words], strict=True):
            # words that hold the part's own text are whole where they stand unchanged
            at = len(said) if rest.startswith(said + part) else rest.find(part)
            if at < 0:
                raise self.refusal("rewrites more than what a message says", "change it")
            found.append(rest[:at])
            rest = rest[at + len(part) :]
        return parts, found[1:]


def joined(parts: Sequence[str], words: Sequence[str]) -> str:
    return "".join(part + word for part, word in zip(parts, [*words, ""], strict=True))
