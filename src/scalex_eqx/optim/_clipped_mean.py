from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import optax
from jaxtyping import Array, Int, PyTree, UInt

from .._weight import is_trainable, is_weight, path_string, rebuilt
from ..ops._wide import wide
from ._checked import checked
from ._numbers import as_dtype_of, check_number
from ._places import is_place
from ._rule import Constant, Degree, Rule
from ._statistics import STATISTICS, statistic


class ClippedMeanState(NamedTuple):
    """The step count, the key's numbers (`None` without noise), and what the rule is."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    key: UInt[Array, "..."] | None
    rule: PyTree


def clipped_mean(
    clip: float, *, noise_multiplier: float = 0.0, key: jax.Array | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""The mean of examples' gradients, each clipped to a norm, with Gaussian noise.

    $$\bar g = \frac1B \left(\sum_i g_i \min\left(1, \frac{C}{\lvert g_i \rvert}\right)
    + \nu\, C\, z\right), \qquad z \sim \mathcal N(0, 1)$$

    The norm is over all weights. What comes out takes the gradient's place: put an update rule
    behind it.

    ```python
    tx = optax.chain(sx.optim.clipped_mean(1.0), sx.adam(3e-3))
    found = sx.gradient_statistics(loss, model, batch, statistics=("clipped",), clip=1.0)
    updates, state = tx.update(found.gradient, state, model, statistics=found)
    ```

    This is the step of DP-SGD; **no privacy is accounted for**, and batches that are drawn with a
    fixed size are not those that its theory assumes.

    **Arguments:**

    - `clip`: $C$, the same that the statistics were clipped at. It doesn't follow the width:
        conversion between parameterizations, which changes norms, refuses it.
    - `noise_multiplier`: $\nu$; 0 for none.
    - `key`: of the noise, from `jax.random.key`. It stands in the state; step and weight are folded
        into it.

    **Returns:** an `optax.GradientTransformationExtraArgs`, whose `update` needs `statistics=`, a
    [`scalex_eqx.GradientStatistics`][] with `clipped`.

    **Raises:** `ValueError` for noise without a key, a key without noise, and noise on weights that
    are masked, whose zeros it would move.

    ??? cite "Source"

        Abadi et al., *Deep Learning with Differential Privacy* (2016),
        [arXiv:1607.00133](https://arxiv.org/abs/1607.00133), Algorithm 1.
    """
    check_number("clip", clip)
    check_number("noise_multiplier", noise_multiplier)
    if not clip > 0:
        raise ValueError(f"clip is {clip!r}; expected a norm greater than 0")
    if (key is None) == (noise_multiplier > 0):
        wanted = "pass key=jax.random.key(...)" if key is None else "leave key out"
        raise ValueError(f"noise_multiplier is {noise_multiplier!r}; {wanted}")
    settings = ((STATISTICS, "clipped"), ("clip", float(clip)))
    noise = (("noise_multiplier", float(noise_multiplier)),) if key is not None else ()
    rule = Rule(
        "clipped_mean",
        constants=(Constant("clip", float(clip), Degree(update=1)),),
        settings=(*settings, *noise),
    )

    def init(params: optax.Params) -> ClippedMeanState:
        del params
        numbers = None if key is None else jax.random.key_data(key)
        return ClippedMeanState(jnp.zeros((), jnp.int32), numbers, rule)

    def update(updates, state, params=None, statistics: Any = None, **_):
        del params
        clipped = statistic(rule, statistics, updates)
        size = 0.0 if key is None else noise_multiplier * clip / statistics.count
        step_key = None
        if key is not None:
            step_key = jax.random.wrap_key_data(state.key, impl=jax.random.key_impl(key))
            step_key = jax.random.fold_in(step_key, state.count)
        leaves, treedef = jtu.tree_flatten(updates, is_leaf=is_place)
        means = treedef.flatten_up_to(clipped)
        for i, (leaf, mean) in enumerate(zip(leaves, means, strict=True)):
            if is_weight(leaf) and leaf.spec.is_trained and is_trainable(leaf.value):
                value = wide(mean.value)
                if step_key is not None:
                    own = jax.random.fold_in(step_key, i)
                    z = jax.random.normal(own, value.shape, value.dtype)
                    value = value + as_dtype_of(value, size) * z
                leaves[i] = rebuilt(leaf, value.astype(leaf.value.dtype))
        count = jnp.asarray(optax.safe_increment(state.count))
        return treedef.unflatten(leaves), ClippedMeanState(count, state.key, rule)

    def check(params: optax.Params) -> None:
        masked = [
            path_string(path)
            for path, leaf in jtu.tree_leaves_with_path(params, is_leaf=is_weight)
            if is_weight(leaf) and leaf.spec.density is not None
        ]
        if masked and key is not None:
            raise ValueError(
                f"noise would move what is masked in {', '.join(masked)}; leave noise_multiplier "
                "out, or take dense weights"
            )

    tx = checked(rule, ClippedMeanState, init, update, check=check, takes_extra=True)
    return optax.with_extra_args_support(tx)
