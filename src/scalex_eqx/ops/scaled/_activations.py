import jax
from jaxtyping import Array, Float

from ._constraint import Constraint, Number
from ._factors import Factors, gated_silu_factors, gelu_factors, silu_factors
from ._scale import scale


def gelu(
    x: Float[Array, "*shape"],
    mult: Number = 1.0,
    *,
    constraint: Constraint | None = "to_output_scale",
) -> Float[Array, "*shape"]:
    r"""$s\, x\, \Phi(m x)$, with a standard deviation of one; its mean comes on top.

    The factors are those of [`scalex_eqx.ops.scaled.gelu_factors`][].

    **Arguments:**

    - `x`: of size one.
    - `mult`: $m$.
    - `constraint`: of output and gradient.
    """
    factors = gelu_factors(mult, constraint=constraint)
    return _between(factors, lambda x: jax.nn.gelu(mult * x, approximate=False) / mult, x)


def silu(
    x: Float[Array, "*shape"],
    mult: Number = 1.0,
    *,
    constraint: Constraint | None = "to_output_scale",
) -> Float[Array, "*shape"]:
    r"""$s\, x\, \sigma(m x)$, with a standard deviation of one; its mean comes on top.

    The factors are those of [`scalex_eqx.ops.scaled.silu_factors`][].

    **Arguments:** those of [`scalex_eqx.ops.scaled.gelu`][].
    """
    factors = silu_factors(mult, constraint=constraint)
    return _between(factors, lambda x: x * jax.nn.sigmoid(mult * x), x)


def _between(factors: Factors, function, x: Array) -> Array:
    """The function with the factors of its output and of its input's gradient."""
    (backward,) = factors.inputs
    if backward == factors.output:
        return function(x) * factors.output
    return scale(function(scale(x, backward=backward)), forward=factors.output)


def gated_silu(
    x: Float[Array, "*shape"], gate: Float[Array, "*shape"], mult: Number = 1.0
) -> Float[Array, "*shape"]:
    r"""$s\, x\, g\, \sigma(m g)$; see [`scalex_eqx.ops.scaled.gated_silu_factors`][].

    **Arguments:**

    - `x`, `gate`: the features and the gate $g$, of size one and independent.
    - `mult`: $m$.
    """
    return x * gate * jax.nn.sigmoid(mult * gate) * gated_silu_factors(mult).output
