import itertools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from .._spec import WeightSpec
from ..ops import hashed, rounded
from ..ops._hashed import hashed_words
from ..ops._rounding import rounded_by
from ..ops._wide import wide, wide_dtype
from ._checked import checked
from ._rule import Degree, Rule
from ._tree import init_values, map_values, move_values
from ._unannotated import Unannotated, with_unannotated

LowPrecisionMode = Literal["master", "kahan", "stochastic"]


class MasterState(NamedTuple):
    """The wrapped rule's state, the weights in float32, and what the rule is."""

    inner_state: PyTree
    master: PyTree
    rule: PyTree


class KahanState(NamedTuple):
    """The wrapped rule's state, what the weights lack in their own dtype, and what the rule is."""

    inner_state: PyTree
    compensation: PyTree
    rule: PyTree


class StochasticRoundingState(NamedTuple):
    """The wrapped rule's state, the step count, and what the rule is."""

    inner_state: PyTree
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    rule: PyTree


def low_precision(
    tx: optax.GradientTransformation,
    mode: LowPrecisionMode,
    *,
    key: jax.Array | None = None,
    unannotated: Unannotated = "error",
) -> optax.GradientTransformationExtraArgs:
    r"""Keeps small updates of bfloat16 or float16 weights from being lost.

    With the rule's update $u$ in float32, $\rho$ for rounding to the weights' dtype and
    $\tilde\rho$ for rounding up or down at random so that the mean is kept:

    | `mode` | step | bytes a weight |
    |---|---|---|
    | `"master"` | $M \leftarrow M + u, \quad w \leftarrow \rho(M)$ | 4 |
    | `"kahan"` | $s = \rho(u + c), \quad w' = \rho(w + s), \quad c \leftarrow s - (w' - w)$ | 2 |
    | `"stochastic"` | $w \leftarrow \tilde\rho(w + u)$ | 0 |

    The last column is what the state adds. `tx` sees gradients and weights in float32, with
    `"master"` the master copy. Weights of float32 or wider are handed through.

    The weights are moved by `optax.apply_updates` or `equinox.apply_updates`, as always. The
    update has the weights' dtype. With `"kahan"` it is $s$, and weight and compensation add up to
    $w + s$ but for float32's rounding: what is lost is the rounding of $u + c$, at most $2^{-9}$
    of it in bfloat16, which has no preferred sign. In the other modes the sum is exactly the
    weight in the table if that is between half and twice what the weight was. Else, for a weight
    that changes its sign say, the update may be a number that the dtype lacks, and is rounded. The
    master copy takes that up in the next step.

    The random bits are hashes of step, weight and place; see [`scalex_eqx.ops.hashed`][].

    **Arguments:**

    - `tx`: any rule, of this library or another, or a chain of them. Wrap all of it.
    - `mode`: `"master"`, `"kahan"` or `"stochastic"`.
    - `key`: for `"stochastic"` only, from `jax.random.key`. Step and weight are folded into it.
    - `unannotated`: `"constant"` to take arrays without a scaling law as weights that don't grow.

    **Returns:** an `optax.GradientTransformation`; its `update` needs the weights.

    **Raises:** `ValueError` for another mode, or a key where none is used or is missing.

    ??? cite "Source"

        Zamirai et al., *Revisiting BFloat16 Training* (2020),
        [arXiv:2010.06192](https://arxiv.org/abs/2010.06192), for compensated and stochastically
        rounded updates; Micikevicius et al., *Mixed Precision Training* (2018),
        [arXiv:1710.03740](https://arxiv.org/abs/1710.03740), for the master copy.
    """
    if mode not in ("master", "kahan", "stochastic"):
        raise ValueError(f"mode is {mode!r}; expected 'master', 'kahan' or 'stochastic'")
    if (key is None) == (mode == "stochastic"):
        wanted = "needs a key: pass jax.random.key(...)" if key is None else "uses no key: drop it"
        raise ValueError(f"mode {mode!r} {wanted}")
    inside = optax.with_extra_args_support(tx)
    if key is not None:
        wrapped = _stochastic(inside, key)
    else:
        wrapped = _master(inside) if mode == "master" else _kahan(inside)
    return optax.with_extra_args_support(with_unannotated(wrapped, unannotated))


def _master(inside: optax.GradientTransformationExtraArgs) -> optax.GradientTransformation:
    rule = _rule("master", "master")

    def init(params: optax.Params) -> MasterState:
        return MasterState(inside.init(_widened(params)), _of_narrow(wide, params), rule)

    def update(updates, state, params=None, **extra):
        _check(params)
        seen = map_values(lambda _, w, m: w if m is None else m, params, state.master)
        moved, inner = inside.update(_widened(updates), state.inner_state, seen, **extra)
        master = map_values(lambda _, m, u: m + u.astype(m.dtype), state.master, moved)

        def step(_, u, w, m):
            return u.astype(w.dtype) if m is None else _step_to(w, rounded(m, w.dtype))

        return map_values(step, moved, params, master), MasterState(inner, master, rule)

    return checked(rule, MasterState, init, update, keeps_all=False, takes_extra=True)


def _kahan(inside: optax.GradientTransformationExtraArgs) -> optax.GradientTransformation:
    rule = _rule("kahan", "compensation")

    def init(params: optax.Params) -> KahanState:
        zeros = _of_narrow(jnp.zeros_like, params)
        return KahanState(inside.init(_widened(params)), zeros, rule)

    def update(updates, state, params=None, **extra):
        _check(params)
        moved, inner = inside.update(
            _widened(updates), state.inner_state, _widened(params), **extra
        )

        def step(_, u, w, c) -> tuple[Any, ...]:
            return (u.astype(w.dtype), w, c) if c is None else _compensated(u, w, c)

        steps, _, compensation = move_values(step, moved, params, state.compensation)
        return steps, KahanState(inner, compensation, rule)

    return checked(rule, KahanState, init, update, keeps_all=False, takes_extra=True)


def _stochastic(
    inside: optax.GradientTransformationExtraArgs, key: jax.Array
) -> optax.GradientTransformation:
    rule = _rule("stochastic")

    def init(params: optax.Params) -> StochasticRoundingState:
        return StochasticRoundingState(
            inside.init(_widened(params)), jnp.zeros((), jnp.int32), rule
        )

    def update(updates, state, params=None, **extra):
        _check(params)
        moved, inner = inside.update(
            _widened(updates), state.inner_state, _widened(params), **extra
        )
        one, two = jax.random.bits(jax.random.fold_in(key, state.count), (2,), jnp.uint32)

        def step(_, u, w, number):
            if number is None:
                return u.astype(w.dtype)
            bits = hashed(w.shape, hashed_words((one, two), number))
            return _step_to(w, rounded_by(wide(w) + u, w.dtype, bits))

        count = jnp.asarray(optax.safe_increment(state.count))
        steps = map_values(step, moved, params, _numbered(params))
        return steps, StochasticRoundingState(inner, count, rule)

    return checked(rule, StochasticRoundingState, init, update, keeps_all=False, takes_extra=True)


def _rule(mode: str, *fields: str) -> Rule:
    return Rule(
        "low_precision",
        fields=tuple((name, Degree(weight=1)) for name in fields),
        settings=(("mode", mode),),
    )


def _check(params: optax.Params | None) -> None:
    if params is None:
        raise ValueError(
            "what an update comes to depends on the weights: call tx.update(grads, state, params)"
        )


def _widened(tree: PyTree) -> PyTree:
    return map_values(lambda _, x: wide(x), tree)


def _is_narrow(w: Float[Array, "..."]) -> bool:
    return wide_dtype(w.dtype) != w.dtype


def _of_narrow(f: Callable[[Array], Any], params: PyTree) -> PyTree:
    """`f` of every weight that is narrower than float32, and no array for the others."""

    def of(_: WeightSpec, w: Array) -> Any:
        return f(w) if _is_narrow(w) else None

    return init_values(of, params)


def _numbered(params: PyTree) -> PyTree:
    """A number for each weight that is narrower than float32, in the order of the tree."""
    numbers = itertools.count()
    return _of_narrow(lambda _: np.uint32(next(numbers)), params)


def _step_to(w: Float[Array, "*shape"], target: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The update in the dtype of `w` that takes it to `target`, or as near as one can."""
    return rounded(target - wide(w), w.dtype).astype(w.dtype)


def _compensated(
    u: Float[Array, "*shape"], w: Float[Array, "*shape"], c: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"], Float[Array, "*shape"]]:
    """The step, the weight as it is, and what the caller's addition will leave out of the step.

    All is computed from the rounded step. So a step goes through memory in two bytes, and the
    compensation is exact: what is left out of a sum of two numbers is a number of their dtype.
    """
    step = rounded(u + wide(c), w.dtype).astype(w.dtype)
    before, exact = wide(w), wide(step)
    left = ((before - rounded(before + exact, w.dtype)) + exact).astype(c.dtype)
    # Nothing is added. But XLA:CPU, which makes one result in one pass, now has to make the
    # compensation in front of the caller's sum, and needs no copy of the weight from before.
    return (exact + 0 * wide(left)).astype(w.dtype), w, left
