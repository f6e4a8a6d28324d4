"""Reading a request: which task it asks for, with which arguments, under which instructions.

The right answer follows from a reading. Whoever wrote the request (this room, a pipeline that adds
context, instructions or a passage), the task's words are found anywhere in it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from flywright.records import Check, Conversation
from flywright.world.families import Family, Fields, best_reading, worded
from flywright.world.instructions import obey_all, read_instructions
from flywright.world.tasks_writing import LISTING

_LASTING = "[BEGIN OF INSTRUCTION]"
_REVISING = re.compile(r"your last answer|change your answer|say that again", re.IGNORECASE)
_FRAMES = re.compile(
    r"\[(?:BEGIN|END) OF INSTRUCTION\]|This holds for my question now and for all that follow\.|"
    r"For this and every following question:|Note:|Now to the task:|Here is a text\.|Text:"
)


def _asked_sentence(fields: Fields) -> str:
    sentences = [found.strip() for found in re.findall(r"[^.!?\n]+[.!?]?", fields["passage"])]
    found = [sentence for sentence in sentences if sentence] or ["nothing"]
    return found[0] if fields["which"] == "first" else found[-1]


TEXT_SENTENCE = worded("text_sentence", _asked_sentence)  # of any text; drawn by nobody


@dataclass(frozen=True)
class Reading:
    """What a conversation asks for. `family` is None where only a revision was asked for."""

    family: Family | None
    fields: Fields = field(default_factory=dict)
    instructions: tuple[Check, ...] = ()
    previous: str = ""

    def answer(self) -> str:
        base = self.family.solve(self.fields) if self.family else self.previous
        return obey_all(base, self.instructions)


class Reader:
    """Reads conversations with the families of one world."""

    def __init__(self, families: Sequence[Family]):
        self.families = families
        readable = [one for one in families if not one.name.startswith("instruction")]
        self._readable = [*readable, LISTING, TEXT_SENTENCE]

    def read(self, conversation: Conversation) -> Reading | None:
        """The reading of a conversation's last user turn, or None if nothing was understood."""
        *earlier, last = conversation.turns
        previous = earlier[-1].content if earlier else ""
        instructions, text = read_instructions(last.content)
        for turn in earlier:
            if turn.role == "user" and _LASTING in turn.content:
                instructions = (*read_instructions(turn.content)[0], *instructions)
        if instructions and previous and _REVISING.search(text):
            return Reading(None, {}, instructions, previous)
        found = best_reading(self._readable, text)
        if found is None:
            return None
        family, fields = found
        if family.opening:
            fields = {**fields, "previous": previous}
        if family is TEXT_SENTENCE:
            rest = family.phrasings[0].format(**fields)
            fields = {**fields, "passage": _FRAMES.sub(" ", text.replace(rest, " ")).strip()}
        return Reading(family, fields, instructions, previous)
