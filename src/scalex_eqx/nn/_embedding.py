from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._sharding import constrained
from .._spec import WeightSpec
from .._weight import Tie, Weight, effective
from ..theory import Role
from ._init import check_positive, normal


class Embedding(eqx.Module):
    r"""A learned vector for each of `count` tokens, or positions; $\mathcal N(0, 1)$ at init."""

    weight: Weight[Float[Array, "count size"]]

    def __init__(self, count: int, size: int, *, dtype: Any = None, key: PRNGKeyArray):
        """**Arguments:**

        - `count`: how many tokens or positions there are. It must not grow with the width.
        - `size`: of each vector; it grows with the width.
        - `dtype`: of the weights; JAX's default float if not given.
        - `key`: for the initial draw.
        """
        check_positive(count=count, size=size)
        drawn = normal((count, size), 1.0, dtype=dtype, key=key)
        spec = WeightSpec(fan_in=(-2,), fan_out=(-1,), std=1.0, role=Role.embedding)
        self.weight = Weight(drawn.value, spec)

    def __check_init__(self):
        _check(self.weight)

    def __call__(
        self, index: Int[Array, ""], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " size"]:
        """**Arguments:**

        - `index`: a token's number.
        - `key`: ignored; with it the layer fits into `equinox.nn.Sequential`.
        """
        # Rows that are split along the width can't be looked up for some examples alone.
        return constrained(effective(self.weight), "vocabulary", "")[index]


class TiedReadout(eqx.Module):
    r"""The logits $y = m\, E x$ from an embedding's own effective weight $E$.

    $m = 1/\sqrt{\text{size}}$ at the base width and falls as $r^{-(a_o - a)}$, where
    $a_o + b = 1$ and $a$, $b$ are the embedding's exponents. The embedding is handed in at the
    call, so that the model holds it once:

    ```python
    logits = self.readout(x, self.embedding)
    ```
    """

    multiplier: Tie

    def __init__(self, size: int):
        """**Arguments:**

        - `size`: of the embedding's vectors.
        """
        check_positive(size=size)
        self.multiplier = Tie(size**-0.5)

    def __call__(self, x: Float[Array, " size"], embedding: Embedding) -> Float[Array, " count"]:
        """**Arguments:**

        - `x`: one example's features.
        - `embedding`: the `Embedding` that is tied to this readout.
        """
        return self.multiplier.factor * (x @ jnp.transpose(effective(embedding.weight)))


def _check(weight: Weight[Float[Array, "count size"]]) -> None:
    """Runtime type checkers look at arguments, not at fields."""
