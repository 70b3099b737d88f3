from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from ..._weight import Weight
from ...ops import scaled
from ...ops.scaled import Mapped
from .._init import check_positive
from ._weights import stored, unit_constant


class RMSNorm(eqx.Module):
    r"""$y = \gamma\, x / \sqrt{\overline{x^2} + \epsilon}$; without $\gamma$ unless asked for."""

    gain: Weight[Float[Array, " size"]] | None
    eps: float = eqx.field(static=True)

    def __init__(self, size: int, *, use_gain: bool = False, eps: float = 1e-6, dtype: Any = None):
        """**Arguments:**

        - `size`: how many features there are.
        - `use_gain`: whether there is a gain. Transfer was found to be better without.
        - `eps`: added to the mean square.
        - `dtype`: of the gain.
        """
        self.gain = _gain(size, use_gain, dtype)
        self.eps = eps

    def __call__(
        self, x: Float[Array, "*batch size"], *, mapped: Mapped
    ) -> Float[Array, "*batch size"]:
        """**Arguments:** those of [`scalex_eqx.nn.unit.Linear`][]."""
        return _normed(scaled.rms_norm, self, x, mapped)


class LayerNorm(eqx.Module):
    r"""$y = \gamma\, (x - \bar x) / \sqrt{\operatorname{var} x + \epsilon}$; $\gamma$ if wanted."""

    gain: Weight[Float[Array, " size"]] | None
    eps: float = eqx.field(static=True)

    def __init__(self, size: int, *, use_gain: bool = False, eps: float = 1e-5, dtype: Any = None):
        """**Arguments:** those of [`scalex_eqx.nn.unit.RMSNorm`][]."""
        self.gain = _gain(size, use_gain, dtype)
        self.eps = eps

    def __call__(
        self, x: Float[Array, "*batch size"], *, mapped: Mapped
    ) -> Float[Array, "*batch size"]:
        """**Arguments:** those of [`scalex_eqx.nn.unit.Linear`][]."""
        return _normed(scaled.layer_norm, self, x, mapped)


def _gain(size: int, use_gain: bool, dtype: Any) -> Weight | None:
    check_positive(size=size)
    return unit_constant(size, 1.0, dtype=dtype) if use_gain else None


def _normed(
    norm: Callable[..., Array], layer: RMSNorm | LayerNorm, x: Array, mapped: Mapped
) -> Array:
    gain = None if layer.gain is None else stored(layer.gain)[0]
    return norm(x, gain, mapped=mapped, eps=layer.eps)
