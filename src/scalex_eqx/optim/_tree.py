import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters.partial_eval import DynamicJaxprTracer
from jaxtyping import Array, PyTree

from .._spec import WeightSpec
from .._weight import Weight, is_trainable, map_weights


def map_values(f: Callable[..., Array], tree: PyTree, *rest: PyTree) -> PyTree:
    """Replaces the value of every trained `Weight` of `tree` by `f(spec, value, ...)`.

    The remaining arguments are the values at its place in `rest`. A weight that is not trained,
    or that has been masked or filtered out and has no array for a value, stays as it is.
    """

    call = traced_once(f)

    def on_weight(weight: Weight, *others: Weight) -> Weight:
        if not weight.spec.is_trained or not is_trainable(weight.value):
            return weight
        values = (other.value for other in others)
        return Weight(call(weight.spec, weight.value, *values), weight.spec)

    return map_weights(on_weight, tree, *rest)


def traced_once(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f(key, value, ...)`, which Python runs once for all weights of one key and one shape.

    While a step is traced, most of the time goes into the same formula for each of many weights.
    Here the first is traced, and its operations are written again for the others. They stand in
    the step as if `f` had been called. Outside of a trace `f` is called: what is compiled for a
    single step would be compiled again for the next.
    """
    calls: dict[Any, Callable[..., Any]] = {}

    def call(key: Any, value: Any, *values: Any) -> Any:
        if not isinstance(value, DynamicJaxprTracer) or isinstance(key, jax.Array):
            return f(key, value, *values)
        if key not in calls:
            calls[key] = jax.jit(functools.partial(f, key), inline=True)
        return calls[key](value, *values)

    return call


def init_values(f: Callable[[WeightSpec, Array], Array], params: PyTree) -> PyTree:
    """State of the shape of the weights: `f(spec, value)` for those that are trained.

    The others get no array: a frozen model's state costs nothing.
    """

    def on_weight(weight: Weight) -> Weight:
        if not weight.spec.is_trained:
            return Weight(None, weight.spec)
        return Weight(f(weight.spec, weight.value), weight.spec)

    return map_weights(lambda w: on_weight(w) if is_trainable(w.value) else w, params)


def without_frozen(updates: PyTree) -> PyTree:
    """`updates` with zeros for weights that are not trained, which other libraries may move."""

    def on_weight(weight: Weight) -> Weight:
        if not weight.spec.is_trained and is_trainable(weight.value):
            return Weight(jnp.zeros_like(weight.value), weight.spec)
        return weight

    return map_weights(on_weight, updates)
