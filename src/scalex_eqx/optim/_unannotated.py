from fractions import Fraction
from typing import Any, Literal

import jax.tree_util as jtu
import optax
from jaxtyping import PyTree

from .._spec import WeightSpec
from .._weight import Weight, is_trainable, is_weight
from ..theory import Role, standard

Unannotated = Literal["error", "constant"]


def with_unannotated(
    tx: optax.GradientTransformation, unannotated: Unannotated
) -> optax.GradientTransformation:
    """`tx`, for trees with arrays that no scaling law is known for if that is asked for.

    With `"constant"` such an array is to `tx` a weight of role `constant`, of which nothing grows:
    all exponents are zero, and there is no decay. In the state it is a `Weight`. With `"error"`,
    `tx` is left as it is, and refuses.
    """
    if unannotated == "error":
        return tx
    if unannotated != "constant":
        raise ValueError(f"unannotated is {unannotated!r}; expected 'error' or 'constant'")
    tx = optax.with_extra_args_support(tx)

    def init(params: optax.Params) -> Any:
        return tx.init(_annotated(params))

    def update(updates, state, params=None, **extra):
        moved, state = tx.update(_annotated(updates), state, _annotated(params), **extra)
        return _as_before(updates, moved), state

    return optax.GradientTransformationExtraArgs(init, update)


def _annotated(tree: PyTree) -> PyTree:
    return jtu.tree_map(
        lambda x: Weight(x, _nothing_grows(x.ndim)) if is_trainable(x) else x,
        tree,
        is_leaf=is_weight,
    )


def _as_before(tree: PyTree, moved: PyTree) -> PyTree:
    """`moved` without the nodes that `tree` doesn't have."""
    return jtu.tree_map(
        lambda x, y: y.value if is_trainable(x) else y, tree, moved, is_leaf=is_weight
    )


def _nothing_grows(ndim: int) -> WeightSpec:
    return WeightSpec(
        (),
        tuple(range(-ndim, 0)),
        role=Role.constant,
        parameterization=standard,
        width_ratio=Fraction(1),
    )
