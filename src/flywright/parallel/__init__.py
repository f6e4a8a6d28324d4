"""Parallelism put on from outside: a module, a mesh and placements in; the same module out.

with process_group(spec) as device:
    mesh = build_mesh(spec, device.type); model = apply(model, mesh, placements)
Nothing here knows a model; gloo on CPU and NCCL on GPUs run the same code.
"""

from flywright.parallel.apply import apply, apply_pipeline
from flywright.parallel.mesh import build_mesh, process_group, started_ranks
from flywright.parallel.pipeline import pipeline_schedule
from flywright.parallel.watch import Preemption, Watchdog

__all__ = [
    "Preemption",
    "Watchdog",
    "apply",
    "apply_pipeline",
    "build_mesh",
    "pipeline_schedule",
    "process_group",
    "started_ranks",
]
