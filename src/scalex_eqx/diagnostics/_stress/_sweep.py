"""An update rule over many scales of the gradient at once, in one compiled program."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._spec import WeightSpec
from ..._weight import Weight
from ...theory import Role, standard
from ._gradients import Schedule, Shape

# So many scales together stay in a processor's cache.
LANES = 16
# The spread of the weights, that of a typical hidden layer.
SPREAD = 0.02

_SPEC = WeightSpec(
    (-1,),
    (-2,),
    std=SPREAD,
    role=Role.hidden,
    parameterization=standard,
    width_ratio=Fraction(1),
)


class Updates(NamedTuple):
    """What a rule gives at each scale, in float64.

    `looks` are the updates of the last step of each half of the run, axes scale, half and the
    weight's; `largest` the largest size in any step, NaN if an update was not finite.
    """

    looks: np.ndarray
    largest: np.ndarray


def weights(dtype: str, shape: Shape) -> np.ndarray:
    """The values of the weight, which stay as they are."""
    values = SPREAD * np.random.default_rng(2).normal(size=shape)
    return values.astype(jnp.dtype(dtype))


def sweep(
    tx: optax.GradientTransformation, params: np.ndarray, *, wide: bool
) -> Callable[[np.ndarray, Schedule], Updates]:
    """A function from gradients, axes scale, which, and the weight's, to the updates.

    **Arguments:**

    - `tx`: any rule.
    - `params`: values of the weight.
    - `wide`: compute in float64 what `tx` computes in the dtypes of weights, gradients and state.
    """
    compiled = jax.jit(jax.vmap(_run(tx, watched=not wide), in_axes=(0, None, None, None)))

    def of(gradients: np.ndarray, schedule: Schedule) -> Updates:
        with _settings(wide):
            found = [
                compiled(*_arguments(part, schedule, params, wide)) for part in _parts(gradients)
            ]
            looks, largest = (
                np.concatenate([np.asarray(x[i], np.float64) for x in found]) for i in (0, 1)
            )
        return Updates(looks[: len(gradients)], largest[: len(gradients)])

    return of


@contextmanager
def _settings(wide: bool) -> Iterator[None]:
    """JAX's own rules of promotion, which other libraries' update rules rely on."""
    with ExitStack() as stack:
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        stack.enter_context(jax.numpy_rank_promotion("allow"))
        stack.enter_context(jax.enable_x64(wide))
        if wide:
            stack.enter_context(jax.default_device(_device_with_float64()))
        yield


def _device_with_float64() -> Any:
    """The CPU if JAX may use it: some accelerators emulate float64 with float32's range."""
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:
        return None


def _parts(gradients: np.ndarray) -> Iterator[np.ndarray]:
    """Of equal length, the last one filled up, so that they share a compiled program."""
    for start in range(0, len(gradients), LANES):
        rest = gradients[start : start + LANES]
        yield np.concatenate([rest, np.repeat(rest[-1:], LANES - len(rest), axis=0)])


def _arguments(
    gradients: np.ndarray, schedule: Schedule, params: np.ndarray, wide: bool
) -> tuple[np.ndarray, ...]:
    if wide:
        gradients, params = gradients.astype(np.float64), params.astype(np.float64)
    return gradients, *(x.reshape(2, -1, *x.shape[1:]) for x in schedule), params


def _run(tx: optax.GradientTransformation, *, watched: bool) -> Callable[..., Any]:
    """The run at one scale, a scan over both halves; `watched` looks at every step's size."""

    def run(
        pair: Float[Array, "two rows columns"],
        which: Int[Array, "halves steps"],
        shifts: Int[Array, "halves steps axes"],
        params: Float[Array, "rows columns"],
    ):
        def step(carry, x):
            state, largest = carry
            gradient = jnp.roll(pair[x[0]], x[1], (0, 1))
            update, new = tx.update(_tree(gradient), state, _tree(params))
            values = jax.tree.leaves(update)[0]
            largest = _larger(largest, values) if watched else largest
            return (jax.tree.map(_like, new, state), largest), values

        def half(carry, x):
            first = jax.tree.map(lambda x: x[:-1], x)
            carry, _ = jax.lax.scan(lambda *a: (step(*a)[0], None), carry, first)
            return step(carry, jax.tree.map(lambda x: x[-1], x))

        state = tx.init(_tree(params))
        state = state if watched else _widened(tx, state, _tree(params))
        start = (state, jnp.zeros((), jnp.float32 if watched else jnp.float64))
        (_, largest), looks = jax.lax.scan(half, start, (which, shifts))
        return looks, largest

    return run


def _larger(size: Float[Array, ""], values: Float[Array, "..."]) -> Float[Array, ""]:
    """The larger of a size and those of some values, NaN where one of them is not finite."""
    # XLA's maximum on the CPU passes over NaN.
    finite = jnp.all(jnp.isfinite(values))
    now = jnp.where(finite, jnp.max(jnp.abs(values)).astype(size.dtype), jnp.nan)
    # A NaN stays where it has been.
    return jnp.where(size < now, now, size + 0 * now)


def _tree(values: Float[Array, "rows columns"]) -> PyTree:
    return {"weight": Weight(values, _SPEC)}


def _widened(tx: optax.GradientTransformation, state: PyTree, params: PyTree) -> PyTree:
    """The state in float64, if the rule can go on from that."""

    def wide(x: Any) -> Any:
        return x.astype(jnp.float64) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x

    widened = jax.tree.map(wide, state)
    try:
        jax.eval_shape(tx.update, params, widened, params)
    except TypeError:
        # A `cond` in the rule may need the dtype that it has made.
        return state
    return widened


def _like(new: Any, old: Any) -> Any:
    """A rule may change its state's dtype in the first step, which a scan does not allow."""
    return new.astype(old.dtype) if jnp.issubdtype(old.dtype, jnp.floating) else new
