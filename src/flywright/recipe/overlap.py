"""Whether anything held out was trained on: by the words of every request, and by item."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from flywright.recipe.sources import Source
from flywright.recipe.step import Artifact
from flywright.records import Conversation, Message, Prompt, parse_lines
from flywright.synth.filters import normal


def requests(path: Path) -> Iterator[Conversation]:
    """Every user turn in a file of records, each with the talk before it."""
    for _, value in parse_lines(path):
        if "conversation" in value:
            messages = [Message(**message) for message in value["conversation"]["messages"]]
            for end, message in enumerate(messages, start=1):
                if message.role == "user":
                    yield Conversation(messages=tuple(messages[:end]))
        elif value.get("text", "").startswith("User\n"):  # a transcript of continued training
            turns = re.split(r"(?:^|\n)(?:User|Assistant)\n", value["text"])[1:]
            for end in range(1, len(turns) + 1, 2):
                yield Conversation.of(*turns[:end])


def overlap(
    held_out: Sequence[Prompt], trained_on: Iterable[Artifact], source: Source
) -> dict[str, int]:
    """{"prompts", "items"}: held-out prompts whose words, or whose item, were trained on.

    Words are compared normalised, with the user's turns before them; items as `source.identify`
    tells them. "heldout" and "training" count the requests looked at.
    """
    words, items, looked_at = set(), set(), 0
    for artifact in trained_on:
        for path in sorted(artifact.folder.glob("*.jsonl")):
            if path.name in ("ledger.jsonl", "metrics.jsonl", "heldout.jsonl"):
                continue
            for request in requests(path):
                looked_at += 1
                words |= {_words(request), _words(Conversation.of(request.last))}
                items.add(source.identify(request))
    items.discard("")
    return {
        "prompts": sum(_words(prompt.conversation) in words for prompt in held_out),
        "items": sum(source.identify(prompt.conversation) in items for prompt in held_out),
        "heldout": len(held_out),
        "training": looked_at,
    }


def _words(conversation: Conversation) -> str:
    asked = [normal(turn.content) for turn in conversation.turns if turn.role == "user"]
    return json.dumps(asked)
