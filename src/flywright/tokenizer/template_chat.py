"""The chat format of another family: its template, and the mask computed from it by the laws.

A conversation is encoded as its template writes it, so that the ids are those of the family's own
tokenizer. An answer is what follows the prompt up to and with its end token, the first control
token after its words; where its first letters would melt into the prompt's last token, it is
encoded apart. Without a system message the template's default text, if it has one, stands there.
"""

from collections.abc import Sequence

from flywright.errors import UserError
from flywright.files import digest
from flywright.records import Conversation, Message
from flywright.tokenizer.borrowed import Borrowed
from flywright.tokenizer.jinja_template import JinjaTemplate, joined
from flywright.tokenizer.nemotron_chat import Rendered

_ASKED, _ANSWERED = (("user", "", ""),), (("user", "", ""), ("assistant", "", ""))


class TemplateChat:
    """A template over its codec. Where it cannot keep the laws, its functions raise UserError."""

    def __init__(self, codec: Borrowed):
        self._codec = codec
        self.hash = digest(codec.template)
        self.end_ids = codec.end_ids
        self._head = self._tail = self._end = ""
        self._fault: UserError | None = None
        try:
            self._template = self._opened()
        except UserError as error:  # raw prompts need no template
            self._fault = error

    def _opened(self) -> JinjaTemplate:
        """The template, after a look at how it asks for an answer and how it ends one."""
        if not self._codec.template:
            raise UserError(
                f"{self._codec.where}: no chat template; put the chat_template.jinja of the "
                "model's chat version there"
            )
        template = JinjaTemplate(self._codec.template, self._codec.variables, self._codec.where)
        asked, whole = template.parts(_ASKED, True), template.parts(_ANSWERED, False)
        if whole[0] != asked[0] or not whole[1].startswith(asked[1]):
            fault = "writes other text before an answer than it does to ask for one"
            raise template.refusal(fault, "make both the same")
        self._head = whole[1][len(asked[1]) :]
        if asked == template.parts(_ASKED, False) and self._head.strip():
            fault = f"does not open the answer ({self._head!r}) where add_generation_prompt is true"
            raise template.refusal(fault, "let it")
        closing = self._codec.control_in(whole[2])
        if closing is None:
            fault = f"ends an answer without a control token ({whole[2]!r}); a model would not stop"
            raise template.refusal(fault, "let it write the eos_token after the answer")
        self._tail = whole[2][: closing.start()]
        self._end = self._codec.disguise(closing.group())
        end = self._codec.control_id(closing.group())
        self.end_ids = (end, *(one for one in self._codec.end_ids if one != end))
        return template

    def _split(
        self, messages: Sequence[Message], opens: bool, checked: bool
    ) -> tuple[list[str], list[str]]:
        """Template parts, their control tokens disguised, and the words between them."""
        if self._fault is not None:
            raise self._fault
        parts, words = self._template.split(messages, opens, checked)
        return [self._codec.disguise(part) for part in parts], words

    def _laid(self, conversation: Conversation, opens: bool) -> Rendered:
        """Answer by answer: the text since the last one, then the answer with its end."""
        messages = conversation.messages
        parts, words = self._split(messages, opens, checked=True)
        whole = joined(parts, words)
        ids: list[int] = []
        mask: list[bool] = []
        at = 0
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            prompt = joined(*self._split(messages[:index], opens=True, checked=False))
            spoken = sum(bool(one.content.strip()) for one in messages[: index + 1])
            said = sum(map(len, (*parts[:spoken], *words[:spoken])))
            stop = whole.find(self._end, max(said, len(prompt))) + len(self._end)
            ordered = at <= len(prompt) < stop <= said + len(parts[spoken])
            if not ordered or not whole.startswith(prompt):
                raise self._moved(index)
            before, answer = self._apart(whole[at : len(prompt)], whole[len(prompt) : stop], at)
            ids += [*before, *answer]
            mask += [False] * len(before) + [True] * len(answer)
            at = stop
        rest = self._ids(whole[at:], at)
        return Rendered([*ids, *rest], [*mask, *[False] * len(rest)])

    def _moved(self, index: int) -> UserError:
        fault = f"writes what stands before or after answer {(index + 1) // 2} in another way"
        fault += " once turns follow, so that no mask fits it"
        return self._template.refusal(fault, "train on conversations of one turn, or change it")

    def _apart(self, prompt: str, answer: str, at: int) -> tuple[list[int], list[int]]:
        before, both = self._ids(prompt, at), self._ids(prompt + answer, at)
        if both[: len(before)] == before:
            return before, both[len(before) :]
        return before, self._codec.inner_ids(answer)

    def _ids(self, text: str, at: int) -> list[int]:
        """Ids of text that starts the whole, or stands behind a control token."""
        return self._codec.ids_after_control(text) if at else self._codec.encode(text)

    def render(self, conversation: Conversation) -> Rendered:
        return self._laid(conversation, opens=False)

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """Ids with the template's generation prompt.

        Where the laws of training do not hold for it (the template drops the thoughts of earlier
        answers, say), the prompt is what the template writes.
        """
        if self._fault is not None:
            raise self._fault
        try:
            return self._laid(conversation, opens=True).ids
        except UserError:
            parts, words = self._template.rewritten(conversation.messages)
            return self._ids(joined([self._codec.disguise(part) for part in parts], words), 0)

    def answer_ids(self, conversation: Conversation, answer: str) -> list[int]:
        """The last trained stretch of the answered conversation."""
        whole = self.render(conversation.answered(answer))
        stop = len(whole.mask) - whole.mask[::-1].index(True)
        return whole.ids[len(self.prompt_ids(conversation)) : stop]

    def reward_ids(self, conversation: Conversation) -> list[int]:
        return self.render(conversation).ids

    def answer_text(self, ids: list[int]) -> str:
        """Text up to the first end, without what the template puts around an answer's words."""
        stop = next((at for at, token in enumerate(ids) if token in self.end_ids), len(ids))
        text = self._codec.inner_text(ids[:stop])
        return text.removeprefix(self._head).removesuffix(self._tail)

    def parse(self, ids: list[int]) -> Conversation:
        """The conversation whose rendering this is, if the text tells where its words end."""
        if self._fault is not None:
            raise self._fault
        text = self._codec.shown(ids)
        for count in range(1, len(text) + 1):
            shapes = (Conversation.of(*"x" * count, system=system) for system in ("", "x"))
            read = filter(None, (self._read(text, shape) for shape in shapes))
            if found := [one for one in read if self.render(one).ids == ids]:
                # the fewest words: a system message stays apart, a default one is the template's
                return min(found, key=lambda one: sum(len(m.content) for m in one.messages))
        raise UserError("not a rendered conversation, or one whose words hold the template's own")

    def _read(self, text: str, shape: Conversation) -> Conversation | None:
        """The words at the places of the shape's."""
        try:
            parts = self._template.parts(tuple((m.role, "", "") for m in shape.messages), False)
        except UserError:
            return None
        if not text.startswith(parts[0]) or not text.endswith(parts[-1]):
            return None
        text, at = text.removesuffix(parts[-1]), len(parts[0])
        words: list[str] = []
        for part in parts[1:-1]:
            stop = text.find(part, at)
            if stop < 0:
                return None
            words.append(text[at:stop])
            at = stop + len(part)
        found = zip(shape.messages, [*words, text[at:]], strict=True)
        return Conversation(messages=tuple(m.model_copy(update={"content": w}) for m, w in found))
