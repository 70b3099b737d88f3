from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..._weight import Weight
from ...ops import scaled
from ...ops.scaled import Mapped
from ...theory import Role
from .._init import check_positive
from ._weights import stored, unit_normal


class Embedding(eqx.Module):
    r"""A learned vector for each of `count` tokens; $\mathcal N(0, 1)$ at init."""

    weight: Weight[Float[Array, "count size"]]

    def __init__(self, count: int, size: int, *, dtype: Any = None, key: PRNGKeyArray):
        """**Arguments:** those of [`scalex_eqx.nn.Embedding`][]."""
        check_positive(count=count, size=size)
        self.weight = unit_normal(
            (count, size), fan_in=(-2,), fan_out=(-1,), role=Role.embedding, dtype=dtype, key=key
        )

    def __call__(
        self, index: Int[Array, "*batch"], *, mapped: Mapped
    ) -> Float[Array, "*batch size"]:
        """**Arguments:**

        - `index`: tokens' numbers.
        - `mapped`: how many examples are mapped over outside; see
            [`scalex_eqx.ops.scaled.mapped_size`][].
        """
        value, multiplier = stored(self.weight)
        return scaled.scale(scaled.embedding(value, index, mapped=mapped), forward=multiplier)
