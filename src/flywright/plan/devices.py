"""Accelerators by their published numbers, and a cluster of them.

Bandwidths are bytes/s in one direction and per GPU: `link` inside a machine of eight, `network`
between machines. FLOP/s are dense.
"""

from dataclasses import dataclass

from flywright.errors import UserError
from flywright.spec import DeviceSpec

GIB = 2**30
MACHINE_GPUS = 8


def _gpu(
    name: str,
    bf16_tera: float,
    fp8_tera: float,
    memory_gib: float,
    bandwidth_tera: float,
    link_giga: float,
    network_giga: float,
) -> DeviceSpec:
    return DeviceSpec(
        name=name,
        bf16_flops=bf16_tera * 1e12,
        fp8_flops=fp8_tera * 1e12,
        memory_bytes=memory_gib * GIB,
        memory_bandwidth=bandwidth_tera * 1e12,
        link_bandwidth=link_giga * 1e9,
        network_bandwidth=network_giga * 1e9,
    )


# name, bf16 and fp8 TFLOP/s, GiB, TB/s, GB/s inside a machine, GB/s between machines
_DEVICES = {
    device.name: device
    for device in (
        _gpu("H100", 989, 1979, 80, 3.35, 450, 50),
        _gpu("H100-96GB", 989, 1979, 96, 2.4, 450, 50),
        _gpu("H200", 989, 1979, 131, 4.8, 450, 50),
        _gpu("A100", 312, 0, 80, 2.04, 300, 25),
        _gpu("A100-40GB", 312, 0, 40, 1.56, 300, 25),
        _gpu("B200", 2250, 4500, 179, 8.0, 900, 50),
        _gpu("GB200", 2500, 5000, 185, 8.0, 900, 50),
    )
}


def device(name: str) -> DeviceSpec:
    """A device by name. Raises UserError that lists the names."""
    if name not in _DEVICES:
        raise UserError(f"no device {name!r}; known: {', '.join(_DEVICES)}")
    return _DEVICES[name]


def device_names() -> list[str]:
    """Names that `device` knows."""
    return list(_DEVICES)


@dataclass(frozen=True)
class Cluster:
    """So many GPUs of one kind, eight to a machine."""

    device: DeviceSpec
    gpus: int


def cluster(name: str, gpus: int) -> Cluster:
    """A cluster by device name; raises UserError for an unknown device or no GPUs."""
    if gpus < 1:
        raise UserError(f"a cluster needs at least one GPU, not {gpus}")
    return Cluster(device(name), gpus)
