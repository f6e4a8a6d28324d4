"""THE chat format of a tokenizer: conversations to ids with a loss mask, and back. The one door.

A tokenizer of ours has Nemotron's format (nemotron_chat.py), one that a folder of another family
brought has its own template (template_chat.py). The laws are the same: the mask covers exactly the
assistant's words and the end of turn, the prompt of turn n is a prefix of the whole, content never
becomes a control token, and parse undoes render.
"""

from flywright.records import Conversation
from flywright.tokenizer.export import CHAT_HASH as CHAT_HASH
from flywright.tokenizer.nemotron_chat import Rendered
from flywright.tokenizer.tokenizer import Tokenizer


def render(tokenizer: Tokenizer, conversation: Conversation) -> Rendered:
    """Ids and loss mask of a whole conversation; an answer at the end gets its end of turn.

    This and the next four raise UserError where a template of another family cannot keep the laws.
    """
    return tokenizer.chat.render(conversation)


def prompt_ids(tokenizer: Tokenizer, conversation: Conversation) -> list[int]:
    """Ids up to where the assistant's words begin: what a model continues."""
    return tokenizer.chat.prompt_ids(conversation)


def answer_ids(tokenizer: Tokenizer, conversation: Conversation, answer: str) -> list[int]:
    """Ids of an answer with its end of turn: what follows `prompt_ids` in training."""
    return tokenizer.chat.answer_ids(conversation, answer)


def reward_ids(tokenizer: Tokenizer, conversation: Conversation) -> list[int]:
    """Ids that a reward model reads; the last one is the scored token.

    In our format that is <extra_id_2> (SPEC 5.3), in another family's the last of `render`.
    """
    return tokenizer.chat.reward_ids(conversation)


def parse(tokenizer: Tokenizer, ids: list[int]) -> Conversation:
    """The conversation behind rendered ids. Raises UserError if they are not the chat format."""
    return tokenizer.chat.parse(ids)


def answer_text(tokenizer: Tokenizer, ids: list[int]) -> str:
    """Text of a generated answer, without the end of turn."""
    return tokenizer.chat.answer_text(ids)


def end_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens at which generation stops: the end of turn first, then the end of document."""
    return tokenizer.chat.end_ids


def raw_ids(tokenizer: Tokenizer, text: str, continues: bool = False) -> list[int]:
    """Ids of a raw prompt, in which control texts become control tokens (the second door).

    A text that `continues` another stands in the middle: nothing opens it.
    """
    return tokenizer.raw_ids(text, continues)
