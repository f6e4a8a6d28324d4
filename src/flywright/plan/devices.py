"""Accelerators by their published numbers (hardware.toml)."""

from pathlib import Path

from flywright.errors import UserError
from flywright.settings import read_toml
from flywright.spec import DeviceSpec

GIB = 2**30
MACHINE_GPUS = 8


def device(name: str) -> DeviceSpec:
    """A device by name. Raises UserError that lists the names."""
    known = read_toml(Path(__file__).with_name("hardware.toml"))
    if name not in known:
        raise UserError(f"no device {name!r}; known: {', '.join(known)}")
    return DeviceSpec(name=name, **known[name])
