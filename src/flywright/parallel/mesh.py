"""The mesh of ranks: axes pp, dp, tp; tp innermost, so that it stays inside one machine.

torchrun --nproc-per-node 8 ...  then  `with process_group("cuda"): mesh = build_mesh(spec, "cuda")`
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from flywright.errors import UserError
from flywright.spec import MeshSpec

AXES = ("pp", "dp", "tp")
_BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


@contextmanager
def process_group(device: str = "cpu") -> Iterator[None]:
    """Join the ranks that torchrun (or a set-up of its environment variables) started."""
    dist.init_process_group(_BACKENDS[device])
    try:
        yield
    finally:
        dist.destroy_process_group()


def build_mesh(spec: MeshSpec, device: str = "cpu") -> DeviceMesh:
    """A mesh (pp, dp, tp) over all ranks of the running process group.

    Raises UserError where the ranks started are not pp x dp x tp.
    """
    started = dist.get_world_size()
    if started != spec.ranks:
        raise UserError(
            f"mesh pp {spec.pp} x dp {spec.dp} x tp {spec.tp} needs {spec.ranks} ranks, "
            f"but {started} were started"
        )
    return init_device_mesh(device, (spec.pp, spec.dp, spec.tp), mesh_dim_names=AXES)
