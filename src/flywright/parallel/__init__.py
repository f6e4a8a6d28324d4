"""Parallelism put on from outside: a module, a mesh and placements in; the same module out.

with process_group(spec) as device:
    mesh = build_mesh(spec, device.type); model = apply(model, mesh, placements)
Nothing here knows a model; gloo on CPU and NCCL on GPUs run the same code.
"""

from flywright.parallel.apply import apply, apply_pipeline, compute_in
from flywright.parallel.folder import fill, save_sharded
from flywright.parallel.fsdp import exchange, let_go
from flywright.parallel.mesh import build_mesh, process_group
from flywright.parallel.pipeline import Pipeline, runnable
from flywright.parallel.ranks import Ranks, joined
from flywright.parallel.tensor import local_rows
from flywright.parallel.watch import Preemption, Watchdog

__all__ = [
    "Pipeline",
    "Preemption",
    "Ranks",
    "Watchdog",
    "apply",
    "apply_pipeline",
    "build_mesh",
    "compute_in",
    "exchange",
    "fill",
    "joined",
    "let_go",
    "local_rows",
    "process_group",
    "runnable",
    "save_sharded",
]
