"""A fake that answers the pipeline's templates, and one that answers late, in any order."""

import asyncio
import random
import re

import pytest

from flywright.ask import Scripted
from flywright.records import Conversation, Lineage, Prompt, record_id
from flywright.synth import Maker, SynthSettings

CODE = "```python\ndef f(x):\n    return x + {n}\n```"


def reply(prompt, sampling):
    """Lists for list templates, code for coding, follow-ups for the user's part, else an answer."""
    text = prompt.last
    wanted = re.search(r"\b(\d+)\b", text)
    if "numbered list" in text:
        stem = text.splitlines()[0].split(":")[-1].strip().rstrip(".")[:40]
        start = sampling.seed % 1000
        lines = [f"{i + 1}. {stem} item {start + i}" for i in range(int(wanted.group(1)))]
        return "Here they are:\n" + "\n".join(lines) + "\nAnything else?"
    if text.startswith("You play the user") or text.startswith("Here are a user's question"):
        return f"Thank you for that. why is item {len(text) % 7} so?"
    if text.startswith("Make this coding task"):
        return f"harder task {sampling.seed % 9973}"
    if text.startswith("Solve this coding task"):
        return CODE.format(n=sampling.seed % 97)
    if text.startswith("Write") and "assert" in text:
        return "assert f(1) > 0\nassert f(2) > 0"
    if text.startswith("Judge as an experienced"):
        return "Looks fine.\nVerdict: Yes"
    return f"an answer to {len(text)} letters, draw {sampling.seed % 89}"


class Late(Scripted):
    """Answers after a random short while, so that calls end in another order than they began."""

    def __init__(self, reply, seed, **more):
        super().__init__(reply, **more)
        self._rng = random.Random(seed)

    async def complete(self, prompt, sampling):
        await asyncio.sleep(self._rng.random() * 0.003)
        return await super().complete(prompt, sampling)


SMALL = SynthSettings(
    macro_topics=2,
    subtopics=2,
    questions=2,
    revisions=1,
    materials=("poem",),
    school_levels=("middle school",),
    difficulties=("beginner",),
    user_turns=2,
)


@pytest.fixture
def maker():
    return Maker(Scripted(reply, model="fake"), SMALL, seed=5)


@pytest.fixture
def prompts():
    return [make_prompt(f"question number {n} about rivers and {n * 7}") for n in range(12)]


def make_prompt(text, checks=(), task="open_qa"):
    return Prompt(
        id=record_id(text),
        conversation=Conversation.of(text),
        task=task,
        checks=checks,
        lineage=Lineage(source="test"),
    )


@pytest.fixture(name="make_prompt")
def make_prompt_fixture():
    return make_prompt


@pytest.fixture(name="small")
def small_fixture():
    return SMALL


@pytest.fixture(name="late")
def late_fixture():
    return lambda seed, with_reply=reply: Late(with_reply, seed, model="fake")
