"""The small world that the laptop recipe lives in: corpus, tasks with truth, a simulated teacher.

    world = World(seed=7)
    world.documents(), world.questions()            # text to pretrain on
    world.prompts(500), world.heldout("near", 200)  # tasks with ground truth
    world.generator()                               # the simulated first model, a Completer
    world.ratings(400)                              # answers rated by simulated people

Everything is drawn from the seed: nothing is downloaded and nothing depends on the order of calls.
"""

from collections.abc import Iterator
from random import Random
from typing import get_args

from flywright.files import digest, seed_from
from flywright.records import Conversation, Document, Prompt, Rating
from flywright.world import tasks_code, tasks_numbers, tasks_words, tasks_writing
from flywright.world.corpus import Corpus
from flywright.world.facts import Facts
from flywright.world.families import Split, draw_prompts
from flywright.world.instructions import short_wording
from flywright.world.ratings import rate_prompts
from flywright.world.reader import Reader
from flywright.world.tasks_code import CODE
from flywright.world.tasks_facts import fact_families
from flywright.world.teacher import Teacher
from flywright.world.teacher_errors import ERRORS
from flywright.world.words import table

__all__ = ["ERRORS", "Teacher", "Untold", "World"]

VERSION = 4  # raise it when the same seed gives other text, tasks or answers
BENCHMARK_COUNT = 600  # held-out prompts of each split that training data is kept clear of


class World:
    """One small world, all of it from one seed. `notes` say what is simulated in it."""

    notes: tuple[str, ...] = tuple(table("notes")["notes"])
    patterned = True  # tasks differ by a word or two: alike are all of a family
    untold: tuple[str, ...] = ()  # sources of the corpus and families that no text shows

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.fingerprint = f"world/{VERSION}/{seed}" + "/untold" * bool(self.untold)
        self.facts = Facts(seed)
        told = (tasks_words, tasks_numbers, tasks_writing, tasks_code)
        others = (family for module in told for family in module.FAMILIES)
        self.families = (*fact_families(self.facts), *others)
        self.reader = Reader(self.families)
        self._corpus = Corpus(self.families, self.facts, seed, self.untold)
        self._teacher = Teacher(seed, self.facts, self.reader)

    def documents(self) -> Iterator[Document]:
        return self._corpus.documents()

    def questions(self) -> list[Document]:
        """Question-answer transcripts of training items, for continued training."""
        return self._corpus.questions()

    def prompts(self, count: int) -> list[Prompt]:
        """`count` different training prompts with checks, all families by weight."""
        chosen = [family for family in self.families if not family.far]
        return draw_prompts(chosen, "", count, self._rng("prompts"))

    def heldout(self, split: Split, count: int) -> list[Prompt]:
        """Held-out prompts: "near" (unseen items), "far" (harder, longer, composed), "tuning".

        Settings are chosen on "tuning", which is like "near" and shares no item with it.
        """
        chosen = [family for family in self.families if family.far == (split == "far")]
        return draw_prompts(chosen, split, count, self._rng("heldout", split))

    def code_seeds(self, count: int = 64) -> list[Prompt]:
        """Coding prompts to start Genetic Instruct from (training items)."""
        return draw_prompts(CODE, "", count, self._rng("prompts"))

    def _rng(self, *what: str) -> Random:
        return Random(seed_from(self.seed, *what))

    def ratings(self, count: int) -> list[Rating]:
        """About `count` rated answers, two to a training prompt."""
        return rate_prompts(self.prompts(count), self.reader, count, self.seed)

    def rated_heldout(self, split: Split, count: int) -> list[Rating]:
        """About `count` rated answers to held-out prompts, to validate a reward model."""
        return rate_prompts(self.heldout(split, count), self.reader, count, self.seed)

    def generator(self) -> Teacher:
        return self._teacher

    def weakness(self, prompt: Prompt) -> str:
        """The kind of error in the generator's greedy answer: one of ERRORS' kinds, or ""."""
        return self._teacher.weakness(prompt.conversation)

    def identify(self, conversation: Conversation) -> str:
        """What identifies the item that is asked for, whatever its wording; "" if it is none."""
        reading = self.reader.read(conversation)
        if reading is None or reading.family is None:
            return ""
        item = reading.family.task_id(reading.fields)
        asked = [turn.content for turn in conversation.turns if turn.role == "user"]
        opening = asked[:-1] if reading.family.opening else []
        return digest(item, opening, [short_wording(one) for one in reading.instructions])

    def benchmark_texts(self) -> Iterator[tuple[str, str]]:
        """(name, text) of held-out prompts of every split, for decontamination."""
        for split in get_args(Split):
            for prompt in self.heldout(split, BENCHMARK_COUNT):
                messages = prompt.conversation.messages
                yield split, "\n".join(message.content for message in messages)


class Untold(World):
    """The same world where no text tells its facts: the control of what a base must have read."""

    untold = ("handbook", "open_qa", "open_qa_two_hop")
