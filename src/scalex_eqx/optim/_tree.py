from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, PyTree

from .._weight import Weight, map_weights


def map_values(f: Callable[..., Array], tree: PyTree, *rest: PyTree) -> PyTree:
    """Replaces the value of every `Weight` of `tree` by `f(spec, value, ...)`.

    The remaining arguments are the values at its place in `rest`. A weight that has been masked
    or filtered out has no array for a value and stays as it is.
    """

    def on_weight(weight: Weight, *others: Weight) -> Weight:
        if not eqx.is_inexact_array(weight.value):
            return weight
        values = (other.value for other in others)
        return Weight(f(weight.spec, weight.value, *values), weight.spec)

    return map_weights(on_weight, tree, *rest)
