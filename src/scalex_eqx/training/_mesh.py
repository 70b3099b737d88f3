"""The devices in a grid whose axes have names."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from .._sharding import SHARDING_RULES
from .._usage import UsageError

_AXES = tuple(dict.fromkeys(axis for axes in SHARDING_RULES.values() for axis in axes))
_EXAMPLE = "shard=8, or data=2,tensor=4, or data,tensor=4, where data takes the devices left"


def parse_mesh(text: str, devices: Sequence[Any] | None = None) -> Mesh:
    """The devices in a grid, from `data=2,shard=4`; one name may stand without its number.

    **Arguments:**

    - `text`: names out of `data`, `shard`, `tensor` and `expert`, with sizes whose product is the
        number of devices.
    - `devices`: all of all hosts unless given.

    **Raises:** `UsageError` that says what was expected.
    """
    devices = jax.devices() if devices is None else devices
    sizes: dict[str, int | None] = {}
    for part in text.split(","):
        name, equals, size = (piece.strip() for piece in part.partition("="))
        if name not in _AXES:
            raise UsageError(
                f"--mesh has the axis {name!r}; choose from {', '.join(_AXES)}, as {_EXAMPLE}"
            )
        if name in sizes:
            raise UsageError(f"--mesh has {name} twice; give it once")
        if equals and not (size.isascii() and size.isdigit() and 0 < int(size) <= len(devices)):
            raise UsageError(
                f"--mesh has {part.strip()!r}, and there are {len(devices)} devices; expected a "
                f"number of them, as {_EXAMPLE}"
            )
        sizes[name] = int(size) if equals else None
    return _made(text, sizes, devices)


def _made(text: str, sizes: dict[str, int | None], devices: Sequence[Any]) -> Mesh:
    open_ones = [name for name, size in sizes.items() if size is None]
    if len(open_ones) > 1:
        raise UsageError(
            f"--mesh has {' and '.join(open_ones)} without a number; give all but one, as "
            f"{_EXAMPLE}"
        )
    known = math.prod(size for size in sizes.values() if size is not None)
    left, rest = divmod(len(devices), known)
    if rest or (left != 1 and not open_ones):
        raise UsageError(
            f"--mesh {text} makes {known} devices, and there are {len(devices)}; expected "
            f"{'a divisor of them' if open_ones else 'as many'}, as {_EXAMPLE}"
        )
    shape = [left if size is None else size for size in sizes.values()]
    return Mesh(_grid(shape, devices), tuple(sizes))


def _grid(shape: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
    """Neighbours in the network next to each other, where JAX knows of one."""
    if devices[0].platform == "cpu":
        return np.array(devices).reshape(shape)
    from jax.experimental import mesh_utils

    return mesh_utils.create_device_mesh(tuple(shape), devices=devices)


def said(mesh: Mesh) -> str:
    """A mesh for people: `2 devices, data=2`."""
    sizes = ",".join(f"{name}={size}" for name, size in mesh.shape.items())
    return f"{mesh.size} device{'' if mesh.size == 1 else 's'}, {sizes}"
