import functools

import jax.numpy as jnp
import jax.tree_util as jtu
import optax
from jaxtyping import Array, Float, Inexact

from .._weight import is_trainable, is_weight
from ..ops import power_of_two
from ..ops._wide import wide
from ._adam_rule import EpsScaling, check_eps_scaling
from ._moments import finite_or_nan
from ._numbers import Scalar, as_dtype_of, check_number, known_number
from ._rule import Constant, Degree, Rule
from ._sizes import kept_root_mean_square, magnitude, own_axes, root_mean_square
from ._stateless import stateless
from ._tree import map_values


def clip_by_rms(
    threshold: Scalar, *, threshold_scaling: EpsScaling = "constant"
) -> optax.GradientTransformation:
    r"""Limits the root mean square of each weight's update.

    $$u \leftarrow \frac{u}{\max(1, \operatorname{RMS}(u) / d)}$$

    Weights that are stacked along leading axes are limited one by one. Behind a rule that
    normalises, the threshold is the same at every width. In front of the rule stands the gradient,
    whose size falls as $r^{-g}$: clip it by layer with `threshold_scaling="gradient"`, or the
    threshold stops to act as the model grows.

    ```python
    tx = optax.chain(sx.optim.clip_by_rms(0.01, threshold_scaling="gradient"), sx.adam(3e-3))
    ```

    **Arguments:**

    - `threshold`: $d$ at the base width; a float or a traced scalar.
    - `threshold_scaling`: `"gradient"` for a threshold of $d\, r^{-g}$, `"constant"` for $d$.

    **Returns:** an `optax.GradientTransformation` over trees of weights.

    ??? cite "Source"

        Shazeer and Stern, *Adafactor* (2018), section 6,
        [arXiv:1804.04235](https://arxiv.org/abs/1804.04235).
    """
    check_number("threshold", threshold)
    check_eps_scaling(threshold_scaling, "threshold_scaling")
    follows_gradient = threshold_scaling == "gradient"
    scaling = (1, 0) if follows_gradient else (0, 0)
    constant = Constant("threshold", known_number(threshold), Degree(update=1), scaling)
    rule = Rule("clip_by_rms", constants=(constant,))

    def clip(spec, u):
        size = kept_root_mean_square(spec, wide(u), own_axes(spec, u))
        least = threshold * spec.scale(spec.gradient_power) if follows_gradient else threshold
        factor = jnp.minimum(1, as_dtype_of(size, least) / size)
        return _times(factor, u)

    return stateless(rule, lambda updates, _: map_values(clip, updates), takes_complex=True)


def clip_by_effective_norm(max_norm: Scalar) -> optax.GradientTransformation:
    r"""Limits the norm of the gradient with respect to the effective weights.

    $$g \leftarrow \min\left(1, \frac{d}{N}\right) g, \qquad
    N^2 = \sum_\text{weights} \left\| \frac{g}{r^{-a}} \right\|^2$$

    The gradient of an effective weight $W = r^{-a} w$ is the weight's divided by the multiplier.
    It is the same in all equivalent parameterizations, which the gradient that
    `optax.clip_by_global_norm` looks at is not. Put it in front of an update rule:

    ```python
    tx = optax.chain(sx.clip_by_effective_norm(1.0), sx.adam(3e-3))
    ```

    The norm is computed in units of a power of two near the largest entry, so that its squares
    neither underflow nor overflow.

    **Arguments:**

    - `max_norm`: $d$; a float or a traced scalar.

    **Returns:** an `optax.GradientTransformation` over trees of weights. One entry that is not
    finite makes all of the gradient NaN.
    """
    check_number("max_norm", max_norm)
    rule = Rule(
        "clip_by_effective_norm",
        # The gradient with respect to the effective weight has that of update times weight.
        constants=(Constant("max_norm", known_number(max_norm), Degree(update=1, weight=1)),),
    )

    def clip(updates, _):
        factor = _factor(max_norm, _effective_gradients(updates))
        return map_values(lambda _, g: _times(factor, g), updates)

    return stateless(rule, clip, takes_complex=True)


def _times(factor: Float[Array, "..."], g: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    x = wide(g)
    return (x * factor.astype(x.dtype)).astype(g.dtype)


def _effective_gradients(updates: optax.Updates) -> list[Float[Array, "..."]]:
    """The gradients of the trained effective weights, in one dtype."""
    weights = filter(is_weight, jtu.tree_leaves(updates, is_leaf=is_weight))
    return [
        magnitude(w.value).astype(jnp.result_type(float)) / w.spec.multiplier
        for w in weights
        if w.spec.is_trained and is_trainable(w.value)
    ]


def _factor(max_norm: Scalar, gradients: list[Float[Array, "..."]]) -> Float[Array, ""]:
    largest = (jnp.max(jnp.abs(g)) for g in gradients)
    unit = power_of_two(functools.reduce(jnp.maximum, largest, jnp.zeros(())))
    roots = (root_mean_square(g / unit, range(g.ndim)).squeeze() for g in gradients)
    squares = (g.size * jnp.square(root) for g, root in zip(gradients, roots, strict=True))
    norm = finite_or_nan(jnp.sqrt(sum(squares, jnp.zeros(()))))
    # Dividing by the unit first: the norm itself may be too large for the dtype.
    return jnp.minimum(1, as_dtype_of(norm, max_norm) / unit / norm)
