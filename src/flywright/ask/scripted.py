"""The fakes that tests use in place of a model: answers come from a function."""

from collections.abc import Callable
from dataclasses import dataclass

from flywright.ask.protocol import Completion, Sampling
from flywright.records import Conversation


@dataclass(eq=False)
class Scripted:
    """A Completer whose answer is `reply(prompt, sampling)`; it counts its calls."""

    reply: Callable[[Conversation | str, Sampling], str]
    model: str = "scripted"
    likelihood: Callable[[str, str], float] = lambda _context, text: -float(len(text))
    calls: int = 0

    async def complete(self, prompt: Conversation | str, sampling: Sampling) -> Completion:
        """The scripted reply, with words counted as tokens."""
        self.calls += 1
        text = self.reply(prompt, sampling)
        asked = prompt if isinstance(prompt, str) else " ".join(m.content for m in prompt.messages)
        return Completion(
            text, prompt_tokens=len(asked.split()), completion_tokens=len(text.split())
        )

    async def logprobs(self, context: str, continuations: list[str]) -> list[float]:
        """The scripted likelihood of each continuation."""
        self.calls += 1
        return [self.likelihood(context, text) for text in continuations]


@dataclass(eq=False)
class ScriptedScorer:
    """A Scorer whose attributes are `rate(conversation)`."""

    rate: Callable[[Conversation], dict[str, float]]
    model: str = "scripted"

    async def score(self, conversation: Conversation) -> dict[str, float]:
        """The scripted attributes."""
        return self.rate(conversation)
