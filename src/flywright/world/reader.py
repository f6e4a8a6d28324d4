"""Reading a request: which task it asks for, with which arguments, under which instructions.

The right answer follows from a reading. Whoever wrote the request (this room, a pipeline that adds
context, instructions or a passage), the task's words are found anywhere in it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from flywright.records import Conversation
from flywright.world.families import Family, Fields, worded
from flywright.world.instructions import Instruction, read_instructions
from flywright.world.tasks_instructions import LISTING, TELLING, obey_all

_LASTING = "[BEGIN OF INSTRUCTION]"
_REVISING = re.compile(r"your last answer|change your answer|say that again", re.IGNORECASE)
_FRAMES = re.compile(
    r"\[(?:BEGIN|END) OF INSTRUCTION\]|This holds for my question now and for all that follow\.|"
    r"For this and every following question:|Note:|Now to the task:|Here is a text\.|Text:"
)
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]?")


def sentences(text: str) -> list[str]:
    """The sentences of a text, stripped."""
    return [found.strip() for found in _SENTENCE.findall(text) if found.strip()]


def _asked_sentence(fields: Fields) -> str:
    found = sentences(fields["passage"]) or ["nothing"]
    return found[0] if fields["which"] == "first" else found[-1]


TEXT_SENTENCE = worded(  # what can be asked of any text; drawn by nobody
    "text_sentence",
    lambda rng: {"which": rng.choice(("first", "last")), "passage": "It is good."},
    _asked_sentence,
    patterns={"which": "first|last"},
)


@dataclass(frozen=True)
class Reading:
    """What a conversation asks for. `family` is None where only a revision was asked for."""

    family: Family | None
    fields: Fields = field(default_factory=dict)
    instructions: tuple[Instruction, ...] = ()
    previous: str = ""

    def answer(self) -> str:
        """The right answer."""
        base = self.family.solve(self.fields) if self.family else self.previous
        return obey_all(base, self.instructions)


class Reader:
    """Reads conversations with the families of one world."""

    def __init__(self, families: Sequence[Family]):
        readable = [one for one in families if not one.name.startswith("instruction")]
        self._families = [*readable, LISTING, TELLING, TEXT_SENTENCE]

    def match(self, text: str) -> tuple[Family, Fields] | None:
        """The family whose words cover the most of a text, with its fields."""
        best: tuple[int, Family, Fields] | None = None
        for family in self._families:
            found = family.read(text)
            if found and (best is None or found[1] > best[0]):
                best = (found[1], family, found[0])
        return (best[1], best[2]) if best else None

    def read(self, conversation: Conversation) -> Reading | None:
        """The reading of a conversation's last user turn, or None if nothing was understood."""
        turns = list(conversation.turns)
        previous = turns[-2].content if len(turns) > 1 else ""
        instructions, text = read_instructions(turns[-1].content)
        earlier = [turn.content for turn in turns[:-1] if turn.role == "user"]
        for content in earlier:
            if _LASTING in content:
                instructions = (*read_instructions(content)[0], *instructions)
        if instructions and previous and _REVISING.search(text):
            return Reading(None, {}, instructions, previous)
        found = self.match(text)
        if found is None:
            return None
        family, fields = found
        if family.opening:
            fields = {**fields, "previous": previous}
        if family is TEXT_SENTENCE:
            rest = TEXT_SENTENCE.phrasings[0].format(**fields)
            fields = {**fields, "passage": _FRAMES.sub(" ", text.replace(rest, " ")).strip()}
        return Reading(family, fields, instructions, previous)
