import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact, Int

from .._spec import WeightSpec
from ..ops import towards
from ..ops._wide import wide, wide_dtype
from ._numbers import Scalar, as_dtype_of

MomentDtype = Literal["float32", "bfloat16", "float16"]


def wide_zeros(_: WeightSpec, w: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    """Zeros of the shape of a weight, in its dtype or float32, whichever is wider."""
    return _zeros_like(w, wide_dtype(w.dtype))


def zeros_of(
    moment_dtype: MomentDtype | None,
) -> Callable[[WeightSpec, Inexact[Array, "..."]], Inexact[Array, "..."]]:
    """What makes the zeros that a weight's moments start from, `None` for `wide_zeros`."""
    check_moment_dtype(moment_dtype)
    if moment_dtype is None:
        return wide_zeros

    def zeros(_: WeightSpec, w: Array) -> Array:
        if jnp.iscomplexobj(w):
            raise ValueError(
                f"moment_dtype is {moment_dtype!r}, and the moments of a weight of {w.dtype} are "
                "complex; leave it out"
            )
        return _zeros_like(w, jnp.dtype(moment_dtype))

    return zeros


def sizes(zeros: Callable[..., Array]) -> Callable[..., Array]:
    """`zeros` for a moment of sizes, which are real also for complex weights."""

    def real(spec: WeightSpec, w: Array) -> Array:
        x = zeros(spec, w)
        return jnp.real(x) if jnp.iscomplexobj(x) else x

    return real


def _zeros_like(w: Inexact[Array, "*shape"], dtype: jnp.dtype) -> Inexact[Array, "*shape"]:
    """`jnp.zeros_like`, at a fraction of its price for an array that nobody has placed."""
    if isinstance(w, Tracer) or not isinstance(w, jax.Array) or w.committed:
        return jnp.zeros_like(w, dtype=dtype)
    if not jax.sharding.get_abstract_mesh().empty:
        return jnp.zeros_like(w, dtype=dtype)
    return _zeros(w.shape, dtype)()


@functools.lru_cache(maxsize=4096)
def _zeros(shape: tuple[int, ...], dtype: jnp.dtype) -> Callable[[], Array]:
    """Makes new zeros at each call: two states must not share memory that a step may be given."""
    return jax.jit(lambda: jnp.zeros(shape, dtype))


def check_moment_dtype(moment_dtype: Any) -> None:
    if moment_dtype not in (None, "float32", "bfloat16", "float16"):
        raise ValueError(
            f"moment_dtype is {moment_dtype!r}; expected 'float32', 'bfloat16', 'float16', or "
            "None for the weights' dtype or float32, whichever is wider"
        )


def moved(f: Callable[[Array, Array], Array], moment: Array, g: Array) -> Array:
    """`f(moment, gradient)` of one weight, computed in the moment's dtype or float32.

    A real moment of a complex weight gets the gradient's absolute value.

    The result is in the dtype that the moment is kept in, and updates are computed from that. Were
    they computed from what it was before rounding, XLA would keep a copy of the old moments and
    compute the new ones twice.
    """
    x = wide(moment)
    if jnp.iscomplexobj(g) and not jnp.iscomplexobj(x):
        g = jnp.abs(g)
    return f(x, g.astype(x.dtype)).astype(moment.dtype)


def ema(
    decay: Scalar, mean: Inexact[Array, "*shape"], x: Inexact[Array, "*shape"]
) -> Inexact[Array, "*shape"]:
    r"""$\beta m + (1 - \beta) x$."""
    return towards(mean, x, as_dtype_of(mean, 1 - decay))


def mass(decay: Scalar, count: Int[Array, ""]) -> Float[Array, ""]:
    r"""$1 - \beta^t$, the weight of all gradients so far in a moment that started at zero.

    Written as -expm1(t log beta): subtracting beta^t from 1 in float32 loses as many digits as
    1 - beta has leading zeros.
    """
    log_decay = jnp.log(decay) if isinstance(decay, jax.Array) else _log(float(decay))
    return -jnp.expm1(log_decay * count.astype(jnp.result_type(float)))


def unbiased_step(decay: Scalar, count: Int[Array, ""]) -> Float[Array, ""]:
    r"""$(1 - \beta) / (1 - \beta^t)$: 1 at the first step, falling to $1 - \beta$.

    A mean that moves by it towards each new value needs no correction for its start at zero.
    """
    return jnp.minimum((1 - decay) / mass(decay, count), 1)


def finite_or_nan(x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    """`x` with NaN in place of infinities, which some update rules would hide."""
    return jnp.where(jnp.isfinite(x), x, jnp.nan)


def _log(decay: float) -> float:
    return math.log(decay) if decay > 0 else -math.inf
