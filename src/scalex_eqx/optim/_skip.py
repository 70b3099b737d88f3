import functools
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import optax
from jax.extend.core import Literal
from jaxtyping import Array, Bool, Int, PyTree

from .._jaxprs import run_equation
from ..ops._wide import wide
from ._checked import check_state
from ._rule import Rule
from ._tree import parts


class SkipNonfiniteState(NamedTuple):
    """The wrapped rule's state, how many steps were dropped, and what the rule is."""

    inner_state: PyTree
    skipped: Int[Array, ""]
    rule: PyTree


def skip_nonfinite(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Drops a step whose gradient is not finite in every entry, and counts it.

    In such a step all updates are zero and every bit of the rule's state stays as it is, step
    counts included.

    The gradient is read once more than `tx` alone does. In a sharded computation the check covers
    the arrays as `jax.jit` sees them; in one that is written device by device, average the
    gradients first.

    **Arguments:**

    - `tx`: any rule, of this library or another, or a chain of them. The dtypes of its state must
        not change from step to step.

    **Returns:** an `optax.GradientTransformation`; `state.skipped` is the number of steps dropped.
    """
    inside = optax.with_extra_args_support(tx)
    rule = Rule("skip_nonfinite")

    def init(params: optax.Params) -> SkipNonfiniteState:
        return SkipNonfiniteState(inside.init(params), jnp.zeros((), jnp.int32), rule)

    def update(updates, state, params=None, **extra):
        check_state(rule, SkipNonfiniteState, state)
        finite = all_finite(updates)
        new_updates, inner = _kept_unless(
            finite, lambda old: inside.update(updates, old, params, **extra), state.inner_state
        )
        leaves, treedef = jtu.tree_flatten(new_updates)
        new_updates = jtu.tree_unflatten(treedef, _zero_unless(finite, leaves))
        skipped = jnp.where(finite, state.skipped, optax.safe_increment(state.skipped))
        return new_updates, SkipNonfiniteState(inner, skipped, rule)

    return optax.GradientTransformationExtraArgs(init, update)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every entry of every floating-point array is finite.

    A finite sum has finite terms, and is the quickest to compute. Only if it is not finite are
    the terms looked at, for it may have overflowed.
    """
    arrays = dict(enumerate(x for x in jtu.tree_leaves(tree) if eqx.is_inexact_array(x)))
    kinds = {i: (x.shape, x.dtype) for i, x in arrays.items()}

    def every(of_array: Callable[[Array], Array]) -> Array:
        found = [_all(of_array, [arrays[i] for i in part]) for part in parts(kinds)]
        return jnp.stack([jnp.asarray(True), *found]).all()

    return jax.lax.cond(
        every(_has_finite_sum), lambda: jnp.asarray(True), lambda: every(_has_finite_terms)
    )


# Functions of their own, which a traced step calls: many weights are then traced but once.
@functools.partial(jax.jit, static_argnums=0)
def _all(of_array: Callable[[Array], Array], arrays: list[Array]) -> Bool[Array, ""]:
    return jnp.stack([of_array(x) for x in arrays]).all()


def _has_finite_sum(x: Array) -> Bool[Array, ""]:
    return jnp.isfinite(jnp.sum(wide(x)))


def _has_finite_terms(x: Array) -> Bool[Array, ""]:
    # x - x is 0 or NaN. A maximum would be wrong: XLA's reduction on the CPU passes over NaN.
    y = wide(x)
    return jnp.sum(y - y) == 0


@jax.jit
def _where(moves: Bool[Array, ""], new: list[Array], old: list[Array]) -> list[Array]:
    return [jnp.where(moves, x, y) for x, y in zip(new, old, strict=True)]


def _zero_unless(moves: Bool[Array, ""], updates: list[Any]) -> list[Any]:
    results = list(updates)
    for part in parts({i: (jnp.shape(u), jnp.result_type(u)) for i, u in enumerate(updates)}):
        for i, u in zip(part, _or_zero(moves, [updates[i] for i in part]), strict=True):
            results[i] = u
    return results


@jax.jit
def _or_zero(moves: Bool[Array, ""], updates: list[Array]) -> list[Array]:
    return [jnp.where(moves, u, jnp.zeros_like(u)) for u in updates]


def _kept_unless(
    moves: Bool[Array, ""], step: Callable[[PyTree], tuple[PyTree, PyTree]], state: PyTree
) -> tuple[PyTree, PyTree]:
    """`step(state)`, with the old state kept unless `moves`; the updates are then meaningless.

    The choice between an old and a new array is made right where the new one is computed, in
    front of its other uses. Made behind the step, or by `lax.cond` around it, it would leave
    old and new array needed at the same time: XLA then copies the old one and computes the new
    one twice, which takes three to six times as long on the CPU.
    """
    closed, shapes = jax.make_jaxpr(step, return_shape=True)(state)
    jaxpr, treedef = closed.jaxpr, jtu.tree_structure(shapes)
    leaves, state_treedef = jtu.tree_flatten(state)
    if jtu.tree_structure(shapes[1]) != state_treedef:
        raise ValueError(
            "the state has another structure after the update than before, so that the step "
            "can't be dropped; initialise it with tx.init of the same optimizer and weights"
        )
    new = jaxpr.outvars[len(jaxpr.outvars) - len(leaves) :]
    pairs = [(v, x) for v, x in zip(new, leaves, strict=True) if not isinstance(v, Literal)]
    times = Counter(v for v, _ in pairs)
    # A result that stands for several arrays of the state has several old ones.
    old = {v: x for v, x in pairs if times[v] == 1}
    chosen = set()
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *leaves], strict=True))
    for equation in jaxpr.eqns:
        operands = [v.val if isinstance(v, Literal) else values[v] for v in equation.invars]
        results = run_equation(equation, jaxpr, operands)
        values |= dict(zip(equation.outvars, results, strict=True))
        own = [v for v in equation.outvars if v in old]
        if own:
            kept = _where(moves, [values[v] for v in own], [old[v] for v in own])
            values |= dict(zip(own, kept, strict=True))
            chosen.update(own)
    results = [v.val if isinstance(v, Literal) else values[v] for v in jaxpr.outvars]
    first = len(results) - len(leaves)
    for i, (variable, leaf) in enumerate(zip(new, leaves, strict=True), first):
        if isinstance(variable, Literal) or variable not in chosen:
            results[i] = jnp.where(moves, results[i], leaf)
    return jtu.tree_unflatten(treedef, results)
