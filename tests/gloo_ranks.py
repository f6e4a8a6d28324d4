"""Ranks on gloo for tests: processes forked after one torch import, which meet through a file."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

Case = Callable[[Path], None]


def _run(rank: int, case: Case, ranks: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    try:
        case(folder)
    finally:
        dist.destroy_process_group()


def spread(case: Case, folder: Path, ranks: int = 2) -> None:
    """Run `case(folder)` on each rank; raises where one of them did."""
    start_processes(_run, args=(case, ranks, folder), nprocs=ranks, start_method="fork")
