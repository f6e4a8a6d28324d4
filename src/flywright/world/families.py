"""What a task family is: how to draw arguments, say the prompt, solve it and check an answer.

A prompt's text is a phrasing with its fields filled in, and the same phrasing, read backwards as
a pattern, recovers the fields from a text. So whoever must answer reads what anyone else wrote.
Held out or not is decided by a hash of family and fields alone, never by a phrasing or a seed.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any, Literal

from flywright.files import digest
from flywright.records import Check, Conversation, Lineage, Prompt, record_id
from flywright.world.words import listed, table

Fields = dict[str, str]
NEAR_PERCENT, TUNING_PERCENT = 15, 6  # of the items: measured on, and tuned on
_TRIES = 300
_STALE_ROUNDS = 40  # rounds over all families without a new text: they are drawn dry
Split = Literal["near", "tuning", "far"]

_WORDING = table("wording")
_PATTERNS: Fields = _WORDING.pop("patterns")


@dataclass(frozen=True, eq=False)
class Family:
    """One kind of task.

    `patterns`: what its fields look like in a text. `fixed`: fields that no phrasing names.
    `checks`: how an answer is tried, if not by comparing it with the right one as `check` says.
    `lessons`: the corpus's ways to show it worked, with the fields and {answer}. `opening`: the
    first turn of a two-turn task. `known`: the corpus states every item of it, the held-out ones
    too, and only their questions are kept back (facts, spelling). `far`: drawn for the far split
    only. `weight`: its share of a list of prompts.
    """

    name: str
    draw: Callable[[Random], Fields]
    solve: Callable[[Fields], str]
    phrasings: list[str]
    lessons: list[str] = field(default_factory=list)
    patterns: Fields = field(default_factory=dict)
    fixed: Fields = field(default_factory=dict)
    check: Literal["exact", "number"] = "exact"
    checks: Callable[[Fields], tuple[Check, ...]] | None = None
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
        kept = {key: value for key, value in fields.items() if key != "previous"}  # it follows
        return f"{self.name}:{digest(self.name, kept, length=12)}"

    def split_of(self, fields: Fields) -> str:
        """The item's split: "near", "tuning", "far" (all items of a far family), "" to train on."""
        if self.far:
            return "far"
        place = int(digest("split", self.task_id(fields)), 16) % 100
        if place < NEAR_PERCENT:
            return "near"
        return "tuning" if place < NEAR_PERCENT + TUNING_PERCENT else ""

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
        request = rng.choice(self.phrasings).format(**fields)
        return Conversation.of(*(self.opening(fields) if self.opening else ()), request)

    def prompt(self, fields: Fields, rng: Random) -> Prompt:
        conversation = self.ask(fields, rng)
        right = Check(kind=self.check, args={"answer": self.solve(fields)})
        return Prompt(
            id=record_id("world", *(message.content for message in conversation.messages)),
            conversation=conversation,
            task=self.name,
            task_id=self.task_id(fields),
            split=self.split_of(fields),
            checks=self.checks(fields) if self.checks else (right,),
            lineage=Lineage(source="world", answer_by="program"),
        )


def worded(
    name: str,
    solve: Callable[[Fields], str],
    draw: Callable[[Random], Fields] | None = None,
    **more: Any,
) -> Family:
    """A family as wording.toml has it; without `draw`, each field is one of its values."""
    told = {**_WORDING[name], **more}
    if "like" in told:
        told = {**_WORDING[told.pop("like")], "lessons": [], **told}
    values = {key: listed(words) for key, words in told.pop("values", {}).items()}
    patterns = {key: "|".join(map(re.escape, words)) for key, words in values.items()}
    told["patterns"] = patterns | told.pop("patterns", {})

    def one_of_each(rng: Random) -> Fields:
        return {key: rng.choice(words) for key, words in values.items()}

    return Family(name, draw or one_of_each, solve, **told)


def _rounds(families: Sequence[Family], rng: Random) -> Iterator[Family]:
    """Families without end, each as often in a round as its weight says, rounds shuffled."""
    one_round = [family for family in families for _ in range(family.weight)]
    while True:
        rng.shuffle(one_round)
        yield from one_round


def draw_prompts(families: Sequence[Family], split: str, count: int, rng: Random) -> list[Prompt]:
    """Up to `count` prompts of a split with different texts; fewer where there are no more."""
    prompts: dict[str, Prompt] = {}
    stale, limit = 0, _STALE_ROUNDS * sum(family.weight for family in families)
    for family in _rounds(families, rng):
        if len(prompts) >= count or stale > limit:
            break
        if (fields := family.fields_of(rng, split)) is None:
            continue
        prompt = family.prompt(fields, rng)
        text = normal_text(" ".join(message.content for message in prompt.conversation.messages))
        stale = stale + 1 if text in prompts else 0
        prompts.setdefault(text, prompt)
    return list(prompts.values())


def best_reading(families: Sequence[Family], text: str) -> tuple[Family, Fields] | None:
    """The family whose words cover the most of a text, with its fields."""
    readings = [(family, *found) for family in families if (found := family.read(text))]
    return max(readings, key=lambda reading: reading[2])[:2] if readings else None


def as_pattern(phrasing: str, patterns: Fields | None = None) -> re.Pattern[str]:
    """A phrasing as a pattern with one named group a field."""
    known = _PATTERNS | (patterns or {})

    def group(match: re.Match[str]) -> str:
        return f"(?P<{match[1]}>{known[match[1]]})"

    escaped = re.sub(r"\\\{(\w+)\\\}", group, re.escape(phrasing))
    escaped = re.sub(r"(?:\\[ \n])+", r"\\s+", escaped)
    return re.compile(rf"(?<!\w){escaped}(?!\w)")


def normal_text(text: str) -> str:
    """Lower case, single spaces, words and operators only: for finding one text in another."""
    return " ".join(re.findall(r"\w+|[-+*]", text.lower()))
