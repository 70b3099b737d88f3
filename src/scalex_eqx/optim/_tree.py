from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._spec import WeightSpec
from .._weight import Weight, is_trainable, map_weights


def map_values(f: Callable[..., Array], tree: PyTree, *rest: PyTree) -> PyTree:
    """Replaces the value of every trained `Weight` of `tree` by `f(spec, value, ...)`.

    The remaining arguments are the values at its place in `rest`. A weight that is not trained,
    or that has been masked or filtered out and has no array for a value, stays as it is.
    """

    def on_weight(weight: Weight, *others: Weight) -> Weight:
        if not weight.spec.is_trained or not is_trainable(weight.value):
            return weight
        values = (other.value for other in others)
        return Weight(f(weight.spec, weight.value, *values), weight.spec)

    return map_weights(on_weight, tree, *rest)


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
