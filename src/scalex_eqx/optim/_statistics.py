"""What rules are handed that look at the gradient of each example by itself."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import optax
from jaxtyping import PyTree

from .._weight import is_trainable, is_weight, path_string, rebuilt
from ._flat import Flat
from ._places import described, is_place
from ._rule import Rule

STATISTICS = "statistics"
"""The setting of a rule that names the statistic it needs, and the argument that hands it over."""


def needed(rule: Rule | None) -> frozenset[str]:
    """The statistics that a rule's `update` has to be given."""
    name = None if rule is None else dict(rule.settings).get(STATISTICS)
    return frozenset() if name is None else frozenset((name,))


def statistic(rule: Rule, statistics: Any, updates: optax.Updates) -> PyTree:
    """The statistic that a rule needs, as a tree like its updates.

    **Arguments:**

    - `rule`: that needs it.
    - `statistics`: what its `update` was given, a [`scalex_eqx.GradientStatistics`][].
    - `updates`: the gradients.

    **Raises:** `ValueError` that says where it comes from, if it is missing or of another model.
    """
    (name,) = needed(rule)
    tree = getattr(statistics, name, None)
    if tree is None:
        lacks = "none are given" if statistics is None else f"those given lack {name!r}"
        raise ValueError(
            f"{rule.name} needs statistics of the gradients of the batch's examples, and {lacks}. "
            f"Take found = scalex_eqx.gradient_statistics(loss, model, batch, statistics=({name!r},"
            ")), with the loss of one example, and call tx.update(found.gradient, state, model, "
            "statistics=found)"
        )
    inside = updates.tree() if isinstance(updates, Flat) else updates
    places, treedef = jtu.tree_flatten(inside, is_leaf=is_place)
    try:
        found = treedef.flatten_up_to(tree)
    except ValueError as error:
        raise ValueError(
            f"{rule.name}: statistics.{name} is no tree like the gradients: "
            f"{' '.join(str(error).split())[:120]}. Take gradients and statistics from one call of "
            "scalex_eqx.gradient_statistics"
        ) from None
    for i, (place, given) in enumerate(zip(places, found, strict=True)):
        if is_weight(place) and place.spec.is_trained and is_trainable(place.value):
            value = given.value if is_weight(given) else given
            if jnp.shape(value) != place.value.shape or not is_trainable(value):
                path, _ = jtu.tree_leaves_with_path(inside, is_leaf=is_place)[i]
                raise ValueError(
                    f"{rule.name}: statistics.{name} has {described(value)} at "
                    f"{path_string(path) or '(the whole tree)'}; expected an array like the "
                    f"gradient's {described(place.value)}"
                )
            places[i] = rebuilt(place, jnp.asarray(value))
    return Flat(places, updates.treedef) if isinstance(updates, Flat) else treedef.unflatten(places)


def examples(rule: Rule, statistics: Any, least: int) -> jax.Array:
    """Of how many examples the statistics are, as a number of JAX's.

    **Raises:** `ValueError` for fewer than `least`, where the number is known.
    """
    count = statistics.count
    if isinstance(count, int) and count < least:
        raise ValueError(
            f"{rule.name} needs at least {least} examples in a batch to tell their variance, and "
            f"the statistics are of {count}; take larger batches, or second='square'"
        )
    return jnp.asarray(count, jnp.result_type(float))
