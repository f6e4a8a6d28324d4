"""Sharded data parallelism (FSDP2): parameters, gradients and optimizer state over dp ranks.

Gradients are *summed* over ranks, not averaged: a rank's loss is its share of the global loss
(divided by the tokens or pairs of the whole global batch), so that the sum is the gradient of one
process with the whole batch (HOUSE law 6).
"""

from collections.abc import Iterator

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard


def shard_data_parallel(
    module: nn.Module,
    mesh: DeviceMesh,
    layers: str,
    policy: MixedPrecisionPolicy | None = None,
    precise: str = "",
    zero: int = 3,
) -> nn.Module:
    """Shard each layer of the list named `layers`, then the rest, over a one-axis mesh, in place.

    The submodule named `precise`, if there is one, computes in its own dtype whatever the policy.
    zero: as MeshSpec has it. The root (embedding, final norm, head) stays gathered from forward to
    backward, so that a loss may read the head's weight after `hidden()`.
    """
    policy = policy or MixedPrecisionPolicy()
    for layer in module.get_submodule(layers).children():
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=zero == 3)
    if hasattr(module, precise):
        fully_shard(module.get_submodule(precise), mesh=mesh, reshard_after_forward=False)
    fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for part in sharded_parts(module):
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # gloo has no other
    return module


def sharded_parts(module: nn.Module) -> Iterator[FSDPModule]:
    """The modules in it that hold shards."""
    return (part for part in module.modules() if isinstance(part, FSDPModule))


def exchange(module: nn.Module, wanted: bool) -> None:
    """Whether the next backward reduces gradients and lets go of weights: ZeRO 1 does it once."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(wanted)
        module.set_reshard_after_backward(wanted)


def let_go(module: nn.Module) -> None:
    """Free what a forward without a backward left gathered: parameters are shards again."""
    for part in sharded_parts(module):
        part.reshard()
