"""IFEval: 541 prompts with verifiable instructions, four numbers (SPEC 10.6).

Records {key, prompt, instruction_id_list, kwargs}. Prompt-level: all instructions of a prompt
followed; instruction-level: each instruction counts alike. Strict as answered; loose: any of eight
variants. The prompt-strict number is also what the stage table calls instruction_following.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flywright.data.rows import read_rows
from flywright.evals.datafiles import field, find, problem
from flywright.evals.items import Item, Task, item_of
from flywright.judge.instructions import follows, follows_loosely
from flywright.judge.language import reference
from flywright.records import Check, Prompt
from flywright.sandbox import Sandbox

_REPEAT = "combination:repeat_prompt"


def _arguments(instruction: str, given: dict[str, Any], prompt: str) -> dict[str, Any]:
    """The older file does not say which part to repeat: it is what stands before that request."""
    if instruction == _REPEAT and not given.get("prompt_to_repeat"):
        return {**given, "prompt_to_repeat": re.split(r"(?i)\s*first,? repeat", prompt)[0]}
    return {name: value for name, value in given.items() if value is not None}


def load(path: Path) -> Iterator[Prompt]:
    """The prompts of ifeval/input_data.jsonl."""
    path = find(path, "ifeval", "input_data.jsonl")
    for row in read_rows(path):
        text = field(path, row, "prompt")
        ids, arguments = field(path, row, "instruction_id_list"), field(path, row, "kwargs")
        checks = (
            Check(kind=kind, args=_arguments(kind, given, text))
            for kind, given in zip(ids, arguments, strict=True)
        )
        yield problem("ifeval", f"ifeval/{field(path, row, 'key')}", text, *checks)


async def score(prompt: Prompt, answer: str, _sandbox: Sandbox | None = None) -> list[Item]:
    """Prompt-level items, and one item an instruction at instruction level, strict and loose."""
    strict = [follows(check.kind, check.args, answer, reference) for check in prompt.checks]
    loose = [follows_loosely(check.kind, check.args, answer, reference) for check in prompt.checks]
    failed = ", ".join(c.kind for c, ok in zip(prompt.checks, strict, strict=True) if not ok)
    items = [
        item_of(prompt, "prompt_strict", float(all(strict)), answer, detail=failed),
        item_of(prompt, "prompt_loose", float(all(loose)), ""),
    ]
    for metric, followed in (("instruction_strict", strict), ("instruction_loose", loose)):
        for number, (check, ok) in enumerate(zip(prompt.checks, followed, strict=True)):
            name = f"{prompt.id}#{number}"
            items.append(item_of(prompt, metric, float(ok), "", id=name, detail=check.kind))
    return items


IFEVAL = Task("ifeval", load, score, max_tokens=1280)
