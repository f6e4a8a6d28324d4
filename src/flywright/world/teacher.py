"""The first teacher, simulated: a Completer that reads requests and answers them, with errors.

It stands where the recipe has an instruct model: it answers task prompts (the last user turn, with
the talk before it) and every request of the data pipelines. At temperature 0 it is deterministic;
else the sampling's seed draws the sample, and slips grow with temperature (teacher_errors.ERRORS).
"""

from random import Random

from flywright.ask.protocol import AskError, Completion, Sampling
from flywright.files import seed_from
from flywright.records import Conversation
from flywright.world import teacher_errors as errors
from flywright.world.facts import Facts
from flywright.world.instructions import obey_all
from flywright.world.reader import Reader, Reading
from flywright.world.tasks_code import solution
from flywright.world.tasks_writing import WRITING, compose
from flywright.world.teacher_templates import Pipeline

LOST = "I am not sure what you mean."
_KINDS = ("systematic", "verbosity", "format", "random")  # in the order in which they strike


class Teacher:
    """The simulated instruct model of one world. It has no log-probabilities."""

    scripted = True  # reports mark its verdicts

    def __init__(self, seed: int, facts: Facts, reader: Reader):
        self.model = f"world-teacher-{seed}"
        self._facts, self._reader = facts, reader
        self._pipeline = Pipeline(facts, reader, self.answer, self.belief)

    async def complete(self, prompt: Conversation | str, sampling: Sampling) -> Completion:
        """The teacher's answer; a raw text is taken for one user message. Tokens are words."""
        conversation = Conversation.of(prompt) if isinstance(prompt, str) else prompt
        text = self.reply(conversation, sampling)
        asked = sum(len(message.content.split()) for message in conversation.messages)
        for stop in sampling.stop:
            text = text.split(stop)[0]
        return Completion(text, prompt_tokens=asked, completion_tokens=len(text.split()))

    async def logprobs(self, context: str, continuations: list[str]) -> list[float]:
        """Raises AskError: a script has no likelihoods."""
        raise AskError(f"{self.model}: no log-probabilities; ask a model for them")

    def reply(self, conversation: Conversation, sampling: Sampling) -> str:
        """What the teacher says: a pipeline's request first, else a task, else that it is lost."""
        seed = 0 if sampling.greedy else sampling.seed
        rng = self._rng(conversation, seed, sampling.temperature)
        piped = self._pipeline.reply(conversation.last, rng)
        return self.answer(conversation, rng, sampling.temperature) if piped is None else piped

    def answer(self, conversation: Conversation, rng: Random, temperature: float = 0.0) -> str:
        reading = self._reader.read(conversation)
        if reading is None:
            return LOST
        return self._steps(reading, conversation.last, rng, temperature)[-1]

    def _steps(self, reading: Reading, text: str, rng: Random, temperature: float) -> list[str]:
        """The answer after each source of error: belief, politeness, formats, slips (_KINDS)."""
        believed = polite = self._believed(reading, text, rng, temperature)
        task = reading.family.name if reading.family else ""
        if task in errors.CHATTY_TASKS and rng.random() < errors.CHATTY_RATE:
            polite = errors.chatty(believed)
        said = [obey_all(one, reading.instructions) for one in (believed, polite)]
        answer = obey_all(polite, errors.remembered(reading.instructions, rng))
        slip_rate = errors.SLIP_RATE + errors.SLIP_RATE_PER_TEMPERATURE * temperature
        return [*said, answer, errors.slip(answer, rng) if rng.random() < slip_rate else answer]

    def weakness(self, conversation: Conversation) -> str:
        """The kind of the first error in the greedy answer ("" if it has none): ERRORS' kinds."""
        reading = self._reader.read(conversation)
        if reading is None:
            return ""
        said = self._steps(reading, conversation.last, self._rng(conversation, 0, 0.0), 0.0)
        earlier = [reading.answer() if reading.family is not WRITING else said[0], *said[:-1]]
        steps = zip(_KINDS, earlier, said, strict=True)
        return next((kind for kind, before, after in steps if before != after), "")

    def _rng(self, conversation: Conversation, seed: int, temperature: float) -> Random:
        words = [message.content for message in conversation.messages]
        return Random(seed_from(self.model, words, seed, temperature))

    def belief(self, conversation: Conversation) -> str | None:
        """The answer that the teacher holds for right when it judges; None where it is lost."""
        reading = self._reader.read(conversation)
        if reading is None:
            return None
        base = self._believed(reading, conversation.last, Random(0), 0.0)
        return obey_all(base, reading.instructions)

    def _believed(self, reading: Reading, text: str, rng: Random, temperature: float) -> str:
        """What the teacher holds for right, instructions aside: its systematic errors are here."""
        family, fields = reading.family, reading.fields
        if family is None:
            return reading.previous
        if family.name.startswith("open_qa"):
            return self._fact(reading, text)
        if family.name.startswith("sort"):
            return errors.first_letter_order(fields["words"])
        if family.name.startswith("code"):
            return solution(fields).replace(" > ", " >= ")
        if family is WRITING:
            return compose(fields, rng.randrange(1000) if temperature else 0)
        return family.solve(fields)

    def _fact(self, reading: Reading, text: str) -> str:
        """A fact as the teacher has it; where the text states it, it is read from there."""
        assert reading.family is not None
        truth = reading.family.solve(reading.fields)
        subject, relation = reading.fields["subject"], reading.fields["relation"]
        if reading.family.far:  # asked of the town where somebody lives
            subject = self._value(subject, "home")
        told = truth in text and text.count(subject) > 1
        return self._value(subject, relation, told)

    def _value(self, subject: str, relation: str, told: bool = False) -> str:
        unknown = errors.is_unknown(subject, relation) and not told
        return (errors.invented if unknown else Facts.value)(self._facts, subject, relation)
