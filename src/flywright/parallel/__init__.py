"""Parallelism put on from outside: a module, a mesh and placements in; the same module out.

with process_group(spec) as device:
    mesh = build_mesh(spec, device.type); model = apply(model, mesh, placements)
Nothing here knows a model; gloo on CPU and NCCL on GPUs run the same code.
"""

from flywright.parallel.apply import apply, apply_pipeline, compute_in, exchange, let_go
from flywright.parallel.folder import fill, save_sharded
from flywright.parallel.mesh import build_mesh, process_group, started_ranks
from flywright.parallel.pipeline import Pipeline, cut, runnable
from flywright.parallel.ranks import Ranks, joined
from flywright.parallel.tensor import local_rows, sum_parts, take_part
from flywright.parallel.watch import Preemption, Watchdog

__all__ = ["Pipeline", "Preemption", "Ranks", "Watchdog", "apply", "apply_pipeline", "build_mesh"]
__all__ += ["compute_in", "cut", "exchange", "fill", "joined", "let_go", "local_rows"]
__all__ += ["process_group", "runnable", "save_sharded", "started_ranks", "sum_parts", "take_part"]
