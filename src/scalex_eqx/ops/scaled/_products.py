"""Products of activations with weights, and with each other."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._constraint import Constraint, Number, constrained
from ._factors import Factors, embedding_factors, linear_factors, matmul_factors, readout_factors
from ._mapped import Mapped, mapped_size
from ._scale import scale


def linear(
    x: Float[Array, "*batch in"],
    weight: Float[Array, "out in"],
    bias: Float[Array, " out"] | None = None,
    *,
    mapped: Mapped,
    constraint: Constraint | None = "to_output_scale",
    output_scale: Number | None = None,
    gradient_scale: Number = 1.0,
) -> Float[Array, "*batch out"]:
    r"""$y = s\,(x W^\top + b)$, of size one if $x$, $W$ and $\bar y$ are.

    The factors are those of [`scalex_eqx.ops.scaled.linear_factors`][].

    **Arguments:**

    - `x`: features, with the positions of a batch along the leading axes.
    - `weight`: $W$.
    - `bias`: $b$, which has the factor of the output.
    - `mapped`: how many examples `vmap` or `shard_map` hide; see
        [`scalex_eqx.ops.scaled.mapped_size`][].
    - `constraint`: of output and input gradient.
    - `output_scale`: $s$, in place of the formula's.
    - `gradient_scale`: multiplies the weight's gradient besides, where that of the output is known
        to be of another size than one.
    """
    factors = linear_factors(
        x.shape[-1], weight.shape[0], _tokens(x.shape[:-1], mapped), constraint=None
    )
    return _product(x, weight, bias, factors, constraint, output_scale, gradient_scale)


def readout(
    x: Float[Array, "*batch in"],
    weight: Float[Array, "out in"],
    bias: Float[Array, " out"] | None = None,
    *,
    mapped: Mapped,
    constraint: Constraint | None = None,
    output_scale: Number | None = None,
) -> Float[Array, "*batch out"]:
    r"""The logits $y = s\,(x W^\top + b)$, of size $n_\text{in}^{-1/2}$ at first.

    The factors are those of [`scalex_eqx.ops.scaled.readout_factors`][].

    **Arguments:** those of [`scalex_eqx.ops.scaled.linear`][].
    """
    factors = readout_factors(
        x.shape[-1], weight.shape[0], _tokens(x.shape[:-1], mapped), constraint=None
    )
    return _product(x, weight, bias, factors, constraint, output_scale, 1.0)


def _product(
    x: Array,
    weight: Array,
    bias: Array | None,
    factors: Factors,
    constraint: Constraint | None,
    output_scale: Number | None,
    gradient_scale: Number,
) -> Array:
    output = factors.output if output_scale is None else output_scale
    forward, backward = constrained(constraint, output, *factors.inputs)
    of_weight = factors.weights[0] * gradient_scale
    # What comes back passes the output's factor first.
    x = scale(x, backward=backward)
    y = x @ scale(weight, backward=of_weight).T
    if bias is not None:
        own = scale(bias, backward=of_weight)
        y = y + jnp.broadcast_to(own, y.shape)
    return scale(y, forward=forward)


def embedding(
    table: Float[Array, "count size"], index: Int[Array, "*batch"], *, mapped: Mapped
) -> Float[Array, "*batch size"]:
    r"""Rows of a table, whose gradient is of size one if indices are drawn evenly.

    The factors are those of [`scalex_eqx.ops.scaled.embedding_factors`][].

    **Arguments:**

    - `table`: the vectors.
    - `index`: which are looked up.
    - `mapped`: as for [`scalex_eqx.ops.scaled.linear`][].
    """
    (of_table,) = embedding_factors(table.shape[0], _tokens(index.shape, mapped)).weights
    return scale(table, backward=of_table)[index]


def matmul(
    left: Float[Array, "*batch m k"],
    right: Float[Array, "*batch k n"],
    *,
    constraint: Constraint | None = "to_output_scale",
) -> Float[Array, "*batch m n"]:
    r"""$y = s\, L R$ of two activations; see [`scalex_eqx.ops.scaled.matmul_factors`][].

    **Arguments:**

    - `left`, `right`: with equal leading axes.
    - `constraint`: of output and both gradients.
    """
    rows, inner = left.shape[-2:]
    forward, (of_left, of_right), _ = matmul_factors(
        rows, inner, right.shape[-1], constraint=constraint
    )
    if forward == of_left == of_right:
        return scale(left @ right, forward=forward, backward=forward)
    y = scale(left, backward=of_left) @ scale(right, backward=of_right)
    return scale(y, forward=forward)


def _tokens(batch: tuple[int, ...], mapped: Mapped) -> int:
    return math.prod(batch) * mapped_size(mapped)
