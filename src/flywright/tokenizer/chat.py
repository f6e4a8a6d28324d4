"""THE chat format: conversations to ids with a loss mask, and back. One place (SPEC 11.1).

    <extra_id_0>System\\n{system}\\n<extra_id_1>User\\n{question}\\n
    <extra_id_1>Assistant\\n{answer}\\n<extra_id_1>   (in one line)

The mask covers the assistant's words and the end of turn, which is the text "\\n<extra_id_1>".
Each part is encoded alone, so no merge crosses a border and the prompt of turn n is a prefix of
the whole.
"""

import re
from dataclasses import dataclass

from flywright.errors import UserError
from flywright.records import Conversation, Message
from flywright.tokenizer.export import CHAT_HASH as CHAT_HASH
from flywright.tokenizer.tokenizer import CONTROL_TEXTS, Tokenizer

_NAMES = {"system": "System\n", "user": "User\n", "assistant": "Assistant\n"}
_ROLES = {name: role for role, name in _NAMES.items()}
_CONTROL = re.compile("(" + "|".join(re.escape(text) for text in CONTROL_TEXTS) + ")")


@dataclass(frozen=True)
class Rendered:
    """Token ids and, for each, whether it is trained (predicted) as the assistant's."""

    ids: list[int]
    mask: list[bool]


def _turns(tokenizer: Tokenizer, conversation: Conversation) -> Rendered:
    """The conversation without the closing control token."""
    system, turn, _ = tokenizer.extra_ids
    newline = tokenizer.encode("\n")
    ids = [system, *tokenizer.encode(_NAMES["system"])]
    ids += [*tokenizer.encode(conversation.system), *newline]
    mask = [False] * len(ids)
    for index, message in enumerate(conversation.turns):
        # the control token that opens the user's next turn ends the assistant's
        closes_answer = index > 0 and message.role == "user"
        header = [turn, *tokenizer.encode(_NAMES[message.role])]
        words = [*tokenizer.encode(message.content), *newline]
        ids += header + words
        mask += [closes_answer] + [False] * (len(header) - 1)
        mask += [message.role == "assistant"] * len(words)
    return Rendered(ids, mask)


def render(tokenizer: Tokenizer, conversation: Conversation) -> Rendered:
    """Ids and loss mask of a whole conversation; an answer at the end gets its end of turn."""
    rendered = _turns(tokenizer, conversation)
    if conversation.awaits_answer:
        return rendered
    return Rendered([*rendered.ids, tokenizer.extra_ids[1]], [*rendered.mask, True])


def prompt_ids(tokenizer: Tokenizer, conversation: Conversation) -> list[int]:
    """Ids up to and with "Assistant\\n": what a model continues."""
    header = [tokenizer.extra_ids[1], *tokenizer.encode(_NAMES["assistant"])]
    return _turns(tokenizer, conversation).ids + header


def answer_ids(tokenizer: Tokenizer, answer: str) -> list[int]:
    """Ids of an answer with its end of turn: what follows `prompt_ids` in training."""
    return [*tokenizer.encode(answer), *tokenizer.encode("\n"), tokenizer.extra_ids[1]]


def reward_ids(tokenizer: Tokenizer, conversation: Conversation) -> list[int]:
    """Ids that a reward model reads; the last one, <extra_id_2>, is the scored token (SPEC 5.3)."""
    return [*_turns(tokenizer, conversation).ids, tokenizer.extra_ids[2]]


def raw_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a raw prompt, in which control texts become control tokens (the second door)."""
    ids: list[int] = []
    for part in _CONTROL.split(text):
        if part in CONTROL_TEXTS:
            ids.append(tokenizer.control_id(part))
        elif part:
            ids += tokenizer.encode(part)
    return ids


def end_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    """Tokens at which generation stops: <extra_id_1> and end of document."""
    return tokenizer.extra_ids[1], tokenizer.eos_id


def answer_text(tokenizer: Tokenizer, ids: list[int]) -> str:
    """Text of a generated answer, without the end of turn."""
    for index, token in enumerate(ids):
        if token in end_ids(tokenizer):
            ids = ids[:index]
            break
    return tokenizer.decode(ids).removesuffix("\n")


def parse(tokenizer: Tokenizer, ids: list[int]) -> Conversation:
    """The conversation behind rendered ids. Raises UserError if they are not the chat format."""
    system, turn, _ = tokenizer.extra_ids
    segments: list[list[int]] = []
    for token in ids:
        if token in (system, turn):
            segments.append([])
        elif segments:
            segments[-1].append(token)
        else:
            raise UserError("not a rendered conversation: it does not start with <extra_id_0>")
    messages = [_message(tokenizer.decode(segment)) for segment in segments if segment]
    return Conversation(messages=tuple(messages))


def _message(text: str) -> Message:
    name, newline, rest = text.partition("\n")
    role = _ROLES.get(name + newline)
    if role is None or not rest.endswith("\n"):
        raise UserError(f"not a rendered conversation: a turn starts with {name!r}")
    return Message(role=role, content=rest[:-1])  # type: ignore[arg-type]
