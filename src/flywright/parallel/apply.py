"""The one fixed order in which parallelism is put on: cut the pipeline, split tensors, shard data.

Tensor parallelism comes before sharding, because FSDP2 shards the DTensors that it leaves.
Gradients are *summed* over dp ranks, not averaged: a rank's loss is its share of the global loss
(divided by the tokens or pairs of the whole global batch), so that the sum is the gradient of one
process with the whole batch (HOUSE law 6).
"""

import logging
import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from flywright.parallel.pipeline import chunk_numbers, cut
from flywright.parallel.tensor import tensor_parallel
from flywright.spec import PlacementSpec


def apply(
    module: nn.Module,
    mesh: DeviceMesh,
    placements: PlacementSpec,
    policy: MixedPrecisionPolicy | None = None,
    zero: int = 3,
) -> nn.Module:
    """Split and shard a whole module, or one pipeline chunk, over the mesh's tp and dp axes.

    In place. Without a policy, axes of size 1 change nothing, except that gradients are sums over
    dp ranks; zero: as MeshSpec has it. Optimizers must be made after this. Raises UserError where
    weights do not fit.
    """
    _put_on(module, mesh, placements, policy, zero)
    if isinstance(module, FSDPModule) and hasattr(module, "hidden"):
        register_fsdp_forward_method(module, "hidden")
    return module


def apply_pipeline(
    module: nn.Module,
    mesh: DeviceMesh,
    placements: PlacementSpec,
    virtual: int = 1,
    policy: MixedPrecisionPolicy | None = None,
    zero: int = 3,
) -> list[nn.Module]:
    """This rank's chunks of the pipeline, each split and sharded; a Pipeline runs them.

    One whole chunk where the mesh has no pipeline. Give the module on the meta device where it does
    not fit one machine; a chunk keeps its parameters' names.
    """
    stages = mesh["pp"]
    if stages.size() == 1:
        return [apply(module, mesh, placements, policy, zero)]
    numbers = chunk_numbers(stages.get_local_rank(), stages.size(), virtual)
    chunks = [cut(module, number, stages.size() * virtual, placements) for number in numbers]
    for chunk in chunks:  # a Pipeline calls them, so that `hidden` needs no hooks of its own
        _put_on(chunk, mesh, placements, policy, zero=1)
    return chunks


def compute_in(dtype: torch.dtype) -> MixedPrecisionPolicy:
    """Compute in a dtype on weights that are kept in theirs; gradients are summed in fp32 at least.

    For fp64 weights give fp64: nothing is rounded then.
    """
    sums = dtype if dtype == torch.float64 else torch.float32
    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=sums)


def _put_on(
    module: nn.Module,
    mesh: DeviceMesh,
    placements: PlacementSpec,
    policy: MixedPrecisionPolicy | None,
    zero: int,
) -> None:
    """Split over tp; then shard each layer, and the rest, the precise part in its own dtype.

    The root (embedding, final norm, head) stays gathered from forward to backward, so that a loss
    may read the head's weight after `hidden()`.
    """
    # hidden states are indexed, never written to; a norm over two axes is two small sums
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    if mesh["tp"].size() > 1:
        tensor_parallel(module, mesh["tp"], placements.tensor)
    if mesh["dp"].size() == 1 and policy is None:
        return
    policy, dp = policy or MixedPrecisionPolicy(), mesh["dp"]
    for layer in module.get_submodule(placements.layers).children():
        fully_shard(layer, mesh=dp, mp_policy=policy, reshard_after_forward=zero == 3)
    if hasattr(module, placements.precise):
        fully_shard(module.get_submodule(placements.precise), mesh=dp, reshard_after_forward=False)
    fully_shard(module, mesh=dp, mp_policy=policy, reshard_after_forward=False)
    for part in _sharded(module):
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # gloo has no other


def _sharded(module: nn.Module) -> Iterator[FSDPModule]:
    return (part for part in module.modules() if isinstance(part, FSDPModule))


def exchange(module: nn.Module, wanted: bool) -> None:
    """Whether the next backward reduces gradients and lets go of weights: ZeRO 1 does it once."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(wanted)
        module.set_reshard_after_backward(wanted)


def let_go(module: nn.Module) -> None:
    """Free what a forward without a backward left gathered: parameters are shards again."""
    for part in _sharded(module):
        part.reshard()
