"""Real ranks for tests: processes forked after one torch import, with torchrun's variables."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.multiprocessing import get_context


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def torchrun_variables(rank: int, ranks: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def _run(rank: int, case: Callable[[], None], variables: dict[str, str], folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ.update(variables)
    with (folder / f"stderr-{rank}").open("wb") as stream:
        os.dup2(stream.fileno(), 2)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 - pytest's no more
    case()


def run_ranks(
    case: Callable[[], None],
    folder: Path,
    ranks: int = 2,
    variables: Callable[[int, int, int], dict[str, str]] = torchrun_variables,
) -> list[tuple[int | None, str]]:
    """Exit status and stderr of each rank; a rank that does not end in 60 s has status None."""
    port, context = free_port(), get_context("fork")
    started = [
        context.Process(target=_run, args=(rank, case, variables(rank, ranks, port), folder))
        for rank in range(ranks)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    ends = [process.exitcode for process in started]
    for process in started:
        process.kill()
    return [(end, (folder / f"stderr-{rank}").read_text()) for rank, end in enumerate(ends)]
