"""Accelerators by their published numbers (hardware.toml)."""

import re
import time
from functools import lru_cache
from pathlib import Path

from flywright.errors import UserError
from flywright.settings import read_toml
from flywright.spec import DeviceSpec

GIB = 2**30
TABLE = Path(__file__).with_name("hardware.toml")
_SIDE = 1024  # of the matrices that a CPU is measured with
MACHINE_GPUS = 8


class UnknownDeviceError(UserError):
    """hardware.toml has no device of that name."""


def device(name: str) -> DeviceSpec:
    """A device by name. Raises UserError that lists the names."""
    known = read_toml(TABLE)
    if name not in known:
        raise UnknownDeviceError(f"no device {name!r}; known: {', '.join(known)}")
    return DeviceSpec(name=name, **known[name])


def named_in(text: str) -> DeviceSpec:
    """The device that a text such as `A100-80GB (1.6Tb/s RoCE)` names: of the known names the
    longest, and Tb/s are a machine's way to others."""
    said = re.sub(r"[ _-]", "", text.lower())
    names = [name for name in read_toml(TABLE) if name.lower().replace("-", "") in said]
    found = device(max(names, key=len, default=text))
    network = re.search(r"([\d.]+)tb/s", said)
    each = float(network[1]) * 1e12 / 8 / MACHINE_GPUS if network else found.network_bandwidth
    return found.model_copy(update={"network_bandwidth": each})


@lru_cache
def peak_flops(device: str, bf16: bool) -> float:
    """FLOP/s of what this process computes on ("cpu" or "cuda"): published where the table has it.

    Of a CPU the best of some products. 0.0 for an accelerator that is not in the table, or in fp32.
    """
    import torch

    if device != "cpu":
        known, product = read_toml(TABLE), torch.cuda.get_device_name()
        named = (known[name]["bf16_flops"] for name in known if name in product)
        return next(named, 0.0) if bf16 else 0.0
    left, right = (torch.randn(_SIDE, _SIDE).to(torch.bfloat16 if bf16 else None) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        torch.matmul(left, right)
        best = min(best, time.perf_counter() - start)
    return 2 * _SIDE**3 / best
