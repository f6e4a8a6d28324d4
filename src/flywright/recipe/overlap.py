"""What is held out is kept out of training data; and, at the end, whether anything came in."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from flywright.files import write_json
from flywright.recipe.sources import Source, TextSource
from flywright.recipe.step import Artifact, Work
from flywright.records import Conversation, Message, Prompt, parse_lines
from flywright.report.hits import write_hits
from flywright.synth.decontaminate import METHODS, Benchmarks, decontaminate
from flywright.synth.texts import AnyText, normal


def apart(
    work: Work, records: Iterable[AnyText], source: TextSource, share: float = 0.5
) -> list[AnyText]:
    """Without the records that surely repeat an item; suspects stay. Both are counted and shown.

    Texts of a patterned source are compared word for word alone. share: of an item's 8-grams.
    """
    methods = METHODS[:1] if source.patterned else METHODS
    benchmarks = Benchmarks(source.benchmark_texts(), share=share, methods=methods)
    kept, hits = decontaminate(records, benchmarks)
    sure = {hit.record for hit in hits if hit.sure}
    work.facts |= {"contaminated": len(sure), "suspected": len({h.record for h in hits} - sure)}
    if told := list(map(vars, hits)):
        write_json(work / "hits.json", told)  # all; the page shows the first of many
        write_hits(work / "hits.html", told, benchmarks.coverage, (), methods)
    return kept


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
