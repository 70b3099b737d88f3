"""Which settings a rule is tried in, by name."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._probe import Probe
from ._run import Setting

FACTOR = 16.0
"""By how much more gradients or weights are larger where a degree is taken."""

FINE = tuple(x / 2 for x in range(-16, 17))
COARSE = tuple(float(x) for x in range(-36, 37, 2) if abs(x) > 8)
SCALES = tuple(sorted({*FINE, *COARSE}))
"""The scales of the gradient, as powers of ten: half decades near one, and those of float32."""

WEIGHT_SCALES = tuple(float(x) for x in range(-8, 3))
"""The scales of the weights, as powers of ten."""

PARTS: Mapping[str, tuple[Any, ...]] = {
    "entry": (slice(0, 1), slice(0, 1)),
    "row": (slice(0, 1), slice(None)),
    "column": (slice(None), slice(0, 1)),
    "tensor": (slice(None), slice(None)),
}
"""What of a matrix is scaled by itself."""


def small_settings(probe: Probe, leaf: str) -> dict[Any, Setting]:
    """Everything that is asked on the small probe; the parts are those of the matrix `leaf`."""
    base = _base(probe)
    found: dict[Any, Setting] = {("all", x): scaled(base, 10.0**x) for x in SCALES}
    found[("all", "up")] = scaled(base, FACTOR)
    found[("all", "up twice")] = scaled(base, FACTOR**2)
    found[("all", "down")] = scaled(base, 1 / FACTOR)
    found[("zero", 0)] = scaled(base, 0.0)
    found[("zero", "up")] = weighted(scaled(base, 0.0), FACTOR)
    found[("zero first", 0)] = base._replace(first=0.0)
    found[("weights", "up")] = weighted(base, FACTOR)
    for x in WEIGHT_SCALES:
        found[("weights", x)] = weighted(base, 10.0**x)
    found[("zero weight", leaf)] = part_weighted(base, leaf, "tensor", 0.0)
    found[("part", "vector", "tensor")] = part_scaled(base, "vector", None, FACTOR)
    return found | part_settings(base, leaf)


def part_settings(base: Setting, leaf: str) -> dict[Any, Setting]:
    """With a part of a matrix scaled, of its gradient or of itself."""
    found = {}
    for name in PARTS:
        found[("part", leaf, name)] = part_scaled(base, leaf, name, FACTOR)
        found[("weight part", leaf, name)] = part_weighted(base, leaf, name, FACTOR)
    return found


def large_settings(probe: Probe, leaf: str) -> dict[Any, Setting]:
    """Those that are asked on the large probe."""
    base = _base(probe)
    found: dict[Any, Setting] = {("all", 0.0): base}
    for name in ("entry", "row", "column"):
        found[("part", leaf, name)] = part_scaled(base, leaf, name, FACTOR)
    return found


def bare_settings(probe: Probe) -> dict[Any, Setting]:
    """Without gradients."""
    return {("zero", 0): scaled(_base(probe), 0.0)}


def held(settings: Mapping[Any, Setting]) -> dict[Any, Setting]:
    """The same with weights that stay where they are."""
    return {key: setting._replace(moves=0.0) for key, setting in settings.items()}


def _base(probe: Probe) -> Setting:
    ones = {name: np.ones_like(x) for name, x in probe.weights.items()}
    return Setting(ones, ones)


def scaled(setting: Setting, factor: float) -> Setting:
    """The loss so many times as large, and with it all gradients."""
    gradients = {name: np.float32(factor) * x for name, x in setting.gradients.items()}
    return setting._replace(gradients=gradients, loss=factor * setting.loss)


def weighted(setting: Setting, factor: float) -> Setting:
    """All weights so many times as large."""
    weights = {name: np.float32(factor) * x for name, x in setting.weights.items()}
    return setting._replace(weights=weights)


def part_scaled(setting: Setting, leaf: str, part: str | None, factor: float) -> Setting:
    """The gradient of a part so many times as large, and nothing else."""
    return setting._replace(gradients=_with_part(setting.gradients, leaf, part, factor))


def part_weighted(setting: Setting, leaf: str, part: str | None, factor: float) -> Setting:
    """A part of a weight so many times as large, and nothing else."""
    return setting._replace(weights=_with_part(setting.weights, leaf, part, factor))


def _with_part(
    leaves: Mapping[str, np.ndarray], leaf: str, part: str | None, factor: float
) -> dict[str, np.ndarray]:
    changed = leaves[leaf].copy()
    changed[... if part is None else PARTS[part]] *= np.float32(factor)
    return {**leaves, leaf: changed}
