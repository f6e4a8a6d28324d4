"""Sharded data parallelism (FSDP2): parameters, gradients and optimizer state over dp ranks.

Gradients are *summed* over ranks, not averaged: a rank's loss is its share of the global loss
(divided by the tokens or pairs of the whole global batch), so that the sum is the gradient of one
process with the whole batch (HOUSE law 6).
"""

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)


def shard_data_parallel(
    module: nn.Module,
    mesh: DeviceMesh,
    layers: str,
    policy: MixedPrecisionPolicy | None = None,
) -> nn.Module:
    """Shard each layer of the list named `layers`, then the rest, over a one-axis mesh, in place.

    The root (embedding, final norm, head) stays gathered from forward to backward, so that a loss
    may read the head's weight after `hidden()`.
    """
    policy = policy or MixedPrecisionPolicy()
    for layer in module.get_submodule(layers).children():
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
    if hasattr(module, "hidden"):
        register_fsdp_forward_method(module, "hidden")
    return module
