"""Statistics of a batch of which the mean gradient is given, for tests that are about all rules."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import scalex_eqx as sx


def statistics_of(gradient: Any) -> sx.GradientStatistics:
    """Those of two examples, whose gradients are half of it and three halves."""

    def each(f: Any) -> Any:
        # What is no gradient is left to the rule, which says so.
        return jax.tree.map(lambda x: f(x) if is_float(x) else x, gradient)

    return sx.GradientStatistics(
        loss=jnp.zeros(()),
        gradient=gradient,
        square=each(lambda x: 1.25 * jnp.square(x)),
        norm=None,
        norms=None,
        sign=each(jnp.sign),
        fourth=None,
        clipped=each(lambda x: x),
        count=2,
        of="example",
        ways=(),
    )


def is_float(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact)


def with_statistics(tx: Any) -> optax.GradientTransformationExtraArgs:
    """An optimizer that is handed them at each step."""
    tx = optax.with_extra_args_support(tx)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        return tx.update(updates, state, params, statistics=statistics_of(updates), **extra)

    return optax.GradientTransformationExtraArgs(tx.init, update)
