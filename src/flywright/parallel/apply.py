"""The one fixed order in which parallelism is put on: cut the pipeline, split tensors, shard data.

Tensor parallelism comes before sharding, because FSDP shards the DTensors that it leaves.
"""

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy

from flywright.parallel.fsdp import shard_data_parallel
from flywright.parallel.pipeline import chunk_numbers, cut
from flywright.parallel.tensor import tensor_parallel
from flywright.spec import PlacementSpec


def apply(
    module: nn.Module,
    mesh: DeviceMesh,
    placements: PlacementSpec,
    policy: MixedPrecisionPolicy | None = None,
) -> nn.Module:
    """Split and shard a whole module, or one pipeline chunk, over the mesh's tp and dp axes.

    In place; axes of size 1 change nothing, except that dp > 1 or not, gradients are sums over
    ranks (see fsdp). Optimizers must be made after this. Raises UserError where weights do not fit.
    """
    if mesh["tp"].size() > 1:
        tensor_parallel(module, mesh["tp"], placements.tensor)
    if mesh["dp"].size() > 1:
        shard_data_parallel(module, mesh["dp"], placements.layers, policy)
    return module


def apply_pipeline(
    module: nn.Module,
    mesh: DeviceMesh,
    placements: PlacementSpec,
    virtual: int = 1,
    policy: MixedPrecisionPolicy | None = None,
) -> list[nn.Module]:
    """This rank's chunks of the pipeline, each split and sharded; feed them to pipeline_schedule.

    Give the module on the meta device where it does not fit one machine; a chunk keeps its names.
    """
    stages = mesh["pp"]
    numbers = chunk_numbers(stages.get_local_rank(), stages.size(), virtual)
    chunks = [cut(module, number, stages.size() * virtual, placements) for number in numbers]
    return [apply(chunk, mesh, placements, policy) for chunk in chunks]
