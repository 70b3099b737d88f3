from typing import NamedTuple

import jax.numpy as jnp
import jax.tree_util as jtu
import optax
from jaxtyping import Array, Int, PyTree

from .._weight import is_array
from ..ops import towards
from ..ops._wide import wide
from ._checked import checked
from ._moments import unbiased_step, wide_zeros
from ._numbers import Scalar, as_dtype_of, check_number, known_number
from ._rule import Degree, Rule
from ._tree import init_values, map_values


class AverageState(NamedTuple):
    """The wrapped rule's state, the step count, the mean of the weights, and what the rule is."""

    inner_state: PyTree
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    average: PyTree
    rule: PyTree


def average_weights(
    tx: optax.GradientTransformation, decay: Scalar | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Keeps a mean of the weights beside an optimizer, which itself is not changed by it.

    $$\bar w \leftarrow \bar w + \frac{1 - \beta}{1 - \beta^t} (w_t - \bar w), \qquad
    w_t = w_{t-1} + u_t$$

    The initial weights don't count. Without a decay it is the mean of all steps,
    $1/t$ in place of the quotient. It is kept in float32 or wider, since a step of the mean is too
    small for a narrow dtype. [`scalex_eqx.optim.averaged`][] makes a model of it:

    ```python
    tx = sx.optim.average_weights(sx.adam(3e-3), decay=0.999)
    ...
    evaluate(sx.optim.averaged(state, model))
    ```

    A mean of weights has the weights' own law: its decay is the same at every width, and a
    conversion to another parameterization takes it along.

    **Arguments:**

    - `tx`: the whole optimizer, of this library or another.
    - `decay`: $\beta$, below 1; a float or a traced scalar, or `None` for the mean of all steps.

    **Returns:** an `optax.GradientTransformation`; its `update` needs the weights.

    ??? cite "Source"

        Polyak and Juditsky, *Acceleration of Stochastic Approximation by Averaging* (1992), for
        the mean of all steps.
    """
    if decay is not None:
        check_number("decay", decay, below=1.0)
    inside = optax.with_extra_args_support(tx)
    known = "none: all steps count alike" if decay is None else known_number(decay)
    rule = Rule(
        "average_weights",
        fields=(("average", Degree(weight=1)),),
        settings=(("decay", known),),
    )

    def init(params: optax.Params) -> AverageState:
        zeros = init_values(wide_zeros, params)
        return AverageState(inside.init(params), jnp.zeros((), jnp.int32), zeros, rule)

    def update(updates, state, params=None, **extra):
        if params is None:
            raise ValueError(
                "a mean of the weights needs them: call tx.update(grads, state, params)"
            )
        moved, inner = inside.update(updates, state.inner_state, params, **extra)
        count = jnp.asarray(optax.safe_increment(state.count))
        step = 1 / count.astype(jnp.result_type(float))
        if decay is not None:
            step = unbiased_step(decay, count)

        def towards_new(_, mean, w, u):
            x = wide(w).astype(mean.dtype) + u.astype(mean.dtype)
            return towards(mean, x, as_dtype_of(mean, step))

        average = map_values(towards_new, state.average, params, moved)
        return moved, AverageState(inner, count, average, rule)

    return optax.with_extra_args_support(
        checked(rule, AverageState, init, update, keeps_all=False, takes_extra=True)
    )


def averaged(state: PyTree, model: PyTree) -> PyTree:
    """The model with the mean of its weights that [`scalex_eqx.optim.average_weights`][] keeps.

    **Arguments:**

    - `state`: the optimizer's, in which the mean stands at any place.
    - `model`: as it is trained; what is not trained, and its dtypes, are taken from it. Before the
        first step the model itself is returned.

    **Raises:** `ValueError` if the state keeps no mean, or more than one.
    """
    nodes = jtu.tree_leaves(state, is_leaf=lambda node: isinstance(node, AverageState))
    found = [node for node in nodes if isinstance(node, AverageState)]
    if len(found) != 1:
        raise ValueError(
            f"the state keeps {len(found) or 'no'} means of the weights; expected one, of "
            "average_weights(tx) around the whole optimizer"
        )
    means, count = found[0].average, found[0].count

    def of_weight(_, w, mean):
        return jnp.where(count == 0, w, mean.astype(w.dtype)) if is_array(mean) else w

    return map_values(of_weight, model, means)
