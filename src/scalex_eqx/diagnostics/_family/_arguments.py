"""What an update rule is called with beside gradient, state and weights."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._needed import statistics_needed
from ...per_example import gradient_statistics

Extra = Callable[[PyTree, PyTree, Float[Array, ""]], Mapping[str, Any]]

VALUE = 1.0
"""The loss at first; it falls by a hundredth at every step."""
_FALLS = 0.99
# So that the lowest point along a gradient of one is well within a step of one.
_CURVATURE = 4.0


def known(
    params: PyTree, gradients: PyTree, scales: PyTree, value: Float[Array, ""]
) -> dict[str, Any]:
    r"""The further arguments that Optax's rules know, all of one loss.

    $$f(v) = f + \langle g, v - w \rangle + \tfrac12 \langle h, (v - w)^2 \rangle$$

    It has that value and that gradient at the weights, and a curvature that is as large as the part
    of the loss that the gradient is of.

    **Arguments:**

    - `scales`: by how much each entry's part of the loss is larger than usual.
    """
    curvature = jax.tree.map(lambda s, w: (_CURVATURE * s).astype(w.dtype), scales, params)

    # Optax's line searches hand on what they don't know themselves, as a loss takes its data, and
    # look for it among the names.
    def loss(
        others: PyTree, loss: Any = None, obj_fn: Any = None, hessian: Any = None, **_: Any
    ) -> Array:
        del loss, obj_fn, hessian

        def part(v, w, g, h):
            return jnp.sum(g * (v - w) + 0.5 * h * jnp.square(v - w))

        parts = jax.tree.map(part, others, params, gradients, curvature)
        return value + sum(x.astype(value.dtype) for x in jax.tree.leaves(parts))

    return {
        "value": value,
        "loss": value,
        "grad": gradients,
        "value_fn": loss,
        "obj_fn": loss,
        "hessian": curvature,
    }


def value_at(step: Any, scale: Any) -> Any:
    """The loss before a step."""
    return VALUE * scale * _FALLS**step


def taken(tx: optax.GradientTransformation, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that the rule takes."""
    try:
        parameters = inspect.signature(tx.update).parameters.values()
    # Some functions of C have none.
    except (TypeError, ValueError):
        return {}
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return dict(arguments)
    names = {p.name for p in parameters}
    return {name: x for name, x in arguments.items() if name in names}


def statistics(tx: Any, params: PyTree) -> Callable[[PyTree, PyTree], dict[str, Any]]:
    """Of two examples with gradients around the batch's, for rules of this library."""
    asked = statistics_needed(tx, params)
    if not asked:
        return lambda params, gradients: {}

    def loss(params: PyTree, example: PyTree) -> Array:
        factor, gradients = example
        parts = jax.tree.map(lambda w, g: factor * jnp.sum(w * g), params, gradients)
        return sum(jax.tree.leaves(parts), start=jnp.zeros(()))

    def found(params: PyTree, gradients: PyTree) -> dict[str, Any]:
        batch = (jnp.asarray([0.5, 1.5]), jax.tree.map(lambda g: jnp.stack([g, g]), gradients))
        return {"statistics": gradient_statistics(loss, params, batch, **asked)}

    return found
