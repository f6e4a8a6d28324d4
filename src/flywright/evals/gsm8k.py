"""GSM8K, 0-shot chat: the last number of the answer against the one after #### (SPEC 10.1)."""

from collections.abc import Iterator
from pathlib import Path

from flywright.data.rows import read_rows
from flywright.errors import UserError
from flywright.evals import verifiable
from flywright.evals.datafiles import field, find, problem
from flywright.evals.items import Task
from flywright.records import Check, Prompt

REQUEST = "\n\nReason step by step, and end with the final number on a line of its own."


def load(path: Path) -> Iterator[Prompt]:
    """The problems of gsm8k/test.jsonl."""
    path = find(path, "gsm8k", "test.jsonl")
    for number, row in enumerate(read_rows(path)):
        _, mark, final = str(field(path, row, "answer")).rpartition("####")
        if not mark:
            raise UserError(f"{path}: problem {number} has no #### before its final answer")
        right = Check(kind="number", args={"answer": final.strip().replace(",", "")})
        yield problem("gsm8k", f"gsm8k/{number}", field(path, row, "question") + REQUEST, right)


GSM8K = Task("gsm8k", load, verifiable.score, max_tokens=512, request=REQUEST)
