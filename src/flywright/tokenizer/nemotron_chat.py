"""Nemotron's chat format (SPEC 11.1).

    <extra_id_0>System\\n{system}\\n<extra_id_1>User\\n{question}\\n
    <extra_id_1>Assistant\\n{answer}\\n<extra_id_1>   (in one line)

The mask covers the assistant's words and the end of turn, which is the text "\\n<extra_id_1>".
Each part is encoded alone, so no merge crosses a border and the prompt of turn n is a prefix of
the whole.
"""

from dataclasses import dataclass

from flywright.errors import UserError
from flywright.records import Conversation, Message
from flywright.tokenizer.export import CHAT_HASH
from flywright.tokenizer.sentence_pieces import SentencePieces

_NAMES = {"system": "System\n", "user": "User\n", "assistant": "Assistant\n"}
_ROLES = {name: role for role, name in _NAMES.items()}


@dataclass(frozen=True)
class Rendered:
    """Token ids and, for each, whether it is trained (predicted) as the assistant's."""

    ids: list[int]
    mask: list[bool]


class NemotronChat:
    """The format over our codec; what each function gives, chat.py says."""

    def __init__(self, codec: SentencePieces):
        self._codec = codec
        self._system, self._turn, self._label = codec.extra_ids
        self.hash = CHAT_HASH
        self.end_ids: tuple[int, ...] = (self._turn, codec.eos_id)

    def _turns(self, conversation: Conversation) -> Rendered:
        """The conversation without the closing control token."""
        encode = self._codec.encode
        newline = encode("\n")
        ids = [self._system, *encode(_NAMES["system"]), *encode(conversation.system), *newline]
        mask = [False] * len(ids)
        for index, message in enumerate(conversation.turns):
            # the control token that opens the user's next turn ends the assistant's
            closes_answer = index > 0 and message.role == "user"
            header = [self._turn, *encode(_NAMES[message.role])]
            words = [*encode(message.content), *newline]
            ids += header + words
            mask += [closes_answer] + [False] * (len(header) - 1)
            mask += [message.role == "assistant"] * len(words)
        return Rendered(ids, mask)

    def render(self, conversation: Conversation) -> Rendered:
        rendered = self._turns(conversation)
        if conversation.awaits_answer:
            return rendered
        return Rendered([*rendered.ids, self._turn], [*rendered.mask, True])

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        header = [self._turn, *self._codec.encode(_NAMES["assistant"])]
        return self._turns(conversation).ids + header

    def answer_ids(self, conversation: Conversation, answer: str) -> list[int]:
        return [*self._codec.encode(answer), *self._codec.encode("\n"), self._turn]

    def reward_ids(self, conversation: Conversation) -> list[int]:
        return [*self._turns(conversation).ids, self._label]

    def answer_text(self, ids: list[int]) -> str:
        """Text up to the end of turn, whose newline is not the answer's."""
        for index, token in enumerate(ids):
            if token in self.end_ids:
                ids = ids[:index]
                break
        return self._codec.decode(ids).removesuffix("\n")

    def parse(self, ids: list[int]) -> Conversation:
        segments: list[list[int]] = []
        for token in ids:
            if token in (self._system, self._turn):
                segments.append([])
            elif segments:
                segments[-1].append(token)
            else:
                raise UserError("not a rendered conversation: it does not start with <extra_id_0>")
        messages = [_message(self._codec.decode(segment)) for segment in segments if segment]
        return Conversation(messages=tuple(messages))


def _message(text: str) -> Message:
    name, newline, rest = text.partition("\n")
    role = _ROLES.get(name + newline)
    if role is None or not rest.endswith("\n"):
        raise UserError(f"not a rendered conversation: a turn starts with {name!r}")
    return Message(role=role, content=rest[:-1])  # type: ignore[arg-type]
