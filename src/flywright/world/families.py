"""What a task family is: how to draw arguments, say the prompt, solve it and check an answer.

A prompt's text is a phrasing with its fields filled in, and the same phrasing, read backwards as
a pattern, recovers the fields from a text. So whoever must answer reads what anyone else wrote.
Held out or not is decided by a hash of family and fields alone, never by a phrasing or a seed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any

from flywright.files import digest
from flywright.records import Check, Conversation, Lineage, Prompt, record_id
from flywright.world.words import table

Fields = dict[str, str]
NEAR_PERCENT, TUNING_PERCENT = 15, 6  # of the items: measured on, and tuned on
_TRIES = 300
IGNORED_FIELDS = frozenset({"previous"})  # follows from the first turn's words

_PATTERNS = {
    "words": r"[a-z]+(?: [a-z]+)+",
    "word": r"[a-z]+",
    "other": r"[a-z]+",
    "letters": r"[a-z](?: [a-z])*",
    "number": r"\d+",
    "a": r"\d+",
    "b": r"\d+",
    "c": r"\d+",
    "name": r"[a-z_]+",
    "subject": r"[A-Z][a-z]+",
}


def exact(answer: str) -> tuple[Check, ...]:
    """The check that an answer is this text."""
    return (Check(kind="exact", args={"answer": answer}),)


def number(answer: str) -> tuple[Check, ...]:
    """The check that an answer's number is this one."""
    return (Check(kind="number", args={"answer": answer}),)


@dataclass(frozen=True, eq=False)
class Family:
    """One kind of task.

    `known`: the corpus states every item of it, the held-out ones too, and only their questions are
    kept back (facts, spelling). `fixed`: fields that no phrasing names. `far`: drawn for the far
    split only. `lessons`: the corpus's ways to show it worked, with the fields and {answer}.
    `opening`: the first turn of a two-turn task. `weight`: its share of a list of prompts.
    """

    name: str
    phrasings: tuple[str, ...]
    draw: Callable[[Random], Fields]
    solve: Callable[[Fields], str]
    checks: Callable[[Fields], tuple[Check, ...]] | None = None
    lessons: tuple[str, ...] = ()
    patterns: Fields = field(default_factory=dict)
    fixed: Fields = field(default_factory=dict)
    opening: Callable[[Fields], tuple[str, str]] | None = None
    known: bool = False
    far: bool = False
    weight: int = 1

    @cached_property
    def _readers(self) -> list[re.Pattern[str]]:
        return [as_pattern(phrasing, self.patterns) for phrasing in self.phrasings]

    def read(self, text: str) -> tuple[Fields, int] | None:
        """Fields found anywhere in `text`, and how many characters they and their words cover."""
        found = [match for reader in self._readers if (match := reader.search(text))]
        if not found:
            return None
        best = max(found, key=lambda match: match.end() - match.start())
        return {**best.groupdict(), **self.fixed}, best.end() - best.start()

    def task_id(self, fields: Fields) -> str:
        """The item's identity: family and arguments, whatever the phrasing."""
        kept = {key: value for key, value in fields.items() if key not in IGNORED_FIELDS}
        return f"{self.name}:{digest(self.name, kept, length=12)}"

    def split_of(self, fields: Fields) -> str:
        """The item's split: "near", "tuning", "far" (all items of a far family), "" to train on."""
        if self.far:
            return "far"
        place = int(digest("split", self.task_id(fields)), 16) % 100
        if place < NEAR_PERCENT:
            return "near"
        return "tuning" if place < NEAR_PERCENT + TUNING_PERCENT else ""

    def is_heldout(self, fields: Fields) -> bool:
        """True if this item is not to be trained on."""
        return self.split_of(fields) != ""

    def training_fields(self, rng: Random) -> Fields:
        """Arguments that are not held out. Never call it on a far family."""
        fields = self.fields_of(rng, "")
        assert fields is not None, f"{self.name} has no training item"
        return fields

    def fields_of(self, rng: Random, split: str) -> Fields | None:
        """Arguments of a split's item, or None for a small family that has none."""
        draws = (self.draw(rng) for _ in range(_TRIES))
        return next((fields for fields in draws if self.split_of(fields) == split), None)

    def ask(self, fields: Fields, rng: Random) -> Conversation:
        """The prompt's conversation in one of the phrasings."""
        request = rng.choice(self.phrasings).format(**fields)
        return Conversation.of(*(self.opening(fields) if self.opening else ()), request)

    def prompt(self, fields: Fields, rng: Random) -> Prompt:
        """The item as a prompt with its checks."""
        conversation = self.ask(fields, rng)
        checks = self.checks(fields) if self.checks else exact(self.solve(fields))
        return Prompt(
            id=record_id("world", *(message.content for message in conversation.messages)),
            conversation=conversation,
            task=self.name,
            task_id=self.task_id(fields),
            split=self.split_of(fields),
            checks=checks,
            lineage=Lineage(source="world", answer_by="program"),
        )


_WORDING = table("wording")


def worded(
    name: str, draw: Callable[[Random], Fields], solve: Callable[[Fields], str], **more: Any
) -> Family:
    """A family with its phrasings and lessons from wording.toml; `like`: asked as another is."""
    words = _WORDING[more.pop("like", name)]
    lessons = () if more.get("far") else tuple(words.get("lessons", ()))
    return Family(name, tuple(words["phrasings"]), draw, solve, lessons=lessons, **more)


def as_pattern(phrasing: str, patterns: Fields | None = None) -> re.Pattern[str]:
    """A phrasing as a pattern with one named group a field."""
    table = _PATTERNS | (patterns or {})
    seen: set[str] = set()

    def group(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>{table[name]})"

    escaped = re.sub(r"\\\{(\w+)\\\}", group, re.escape(phrasing))
    escaped = re.sub(r"(?:\\[ \n])+", r"\\s+", escaped)
    return re.compile(rf"(?<!\w){escaped}(?!\w)")


def normal_text(text: str) -> str:
    """Lower case, single spaces, words and operators only: for finding one text in another."""
    return " ".join(re.findall(r"\w+|[-+*]", text.lower()))
