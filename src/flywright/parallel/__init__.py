"""Parallelism put on from outside: a module, a mesh and placements in; the same module out.

mesh = build_mesh(MeshSpec(dp=2, tp=2)); model = apply(model, mesh, placements)
Nothing here knows a model; gloo on CPU and NCCL on GPUs run the same code.
"""

from flywright.parallel.apply import apply, apply_pipeline, compute_in
from flywright.parallel.fsdp import exchange
from flywright.parallel.mesh import build_mesh, process_group
from flywright.parallel.pipeline import Pipeline
from flywright.parallel.ranks import Ranks
from flywright.parallel.tensor import local_rows

__all__ = [
    "Pipeline",
    "Ranks",
    "apply",
    "apply_pipeline",
    "build_mesh",
    "compute_in",
    "exchange",
    "local_rows",
    "process_group",
]
