"""Our flow over very many records with an answerer in this process: synth_memory.py ROWS FOLDER.

Prints JSON: memory (MiB) after so many records, seconds and CPU a record. Replies go through the
ledger and the limits as with any answerer; records are written as they come.
"""

import asyncio
import json
import os
import sys
import time
from contextlib import aclosing
from pathlib import Path

from flywright.ask import Ledger, Ledgered, Limited, Sampling, Scripted
from flywright.records import Conversation
from flywright.synth.flow import stream_flow

AT_ONCE = 256


def reply(prompt, _sampling) -> str:
    return f"Two sentences. They answer: {prompt.last}"


async def step(number: int, ask) -> list[dict[str, str]]:
    """One call, one record."""
    asked = Conversation.of(f"Write two sentences about thing number {number}, for a friend.")
    answer = await ask.complete(asked, Sampling(max_tokens=192))
    return [{"id": f"r{number}", "prompt": asked.last, "text": answer.text.strip()}]


def memory_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


async def main(rows: int, folder: Path) -> None:
    marks = {}
    started, done = time.monotonic(), 0
    with Ledger(folder / "ledger") as ledger, (folder / "out.jsonl").open("w") as out:
        ask = Ledgered(Limited(Scripted(reply)), ledger)
        async with aclosing(stream_flow(step, iter(range(rows)), ask, AT_ONCE)) as endings:
            async for ending, _ in endings:
                done += 1
                assert isinstance(ending, list), ending
                out.writelines(json.dumps(record) + "\n" for record in ending)
                if done in (10_000, 30_000, 100_000, 200_000, 300_000, rows) or done % 250_000 == 0:
                    marks[f"{done}"] = memory_mib()
        seconds = time.monotonic() - started
    cpu_ms = round(1e3 * time.process_time() / rows, 3)
    said = {"rows": rows, "mib_after_rows": marks, "records_a_second": round(rows / seconds, 1)}
    print(json.dumps({**said, "cpu_ms_a_record": cpu_ms}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
