import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree, UInt32

from .._spec import WeightSpec
from .._weight import is_trainable, is_weight, rebuilt
from ..ops import hashed
from ..ops._byte_pairs import from_byte_pairs, to_byte_pairs
from ..ops._hashed import hashed_words
from ._adam_rule import EpsScaling, adam_rule, effective_eps
from ._budget import Eps
from ._checked import checked
from ._moments import ema, mass
from ._numbers import Scalar, as_dtype_of
from ._rule import Degree
from ._sizes import own_axes
from ._tree import init_values, map_values, move_values

LEAST_SIZE, LEAST_ROW = 4096, 32
"""Entries of a weight, and of one of its rows, from which on its moments are kept in bytes."""

_DITHER = (np.uint32(0x243F6A88), np.uint32(0x85A308D3))


class ScaleByAdamBytesState(NamedTuple):
    r"""The step count, Adam's moments in a byte each, and what the rule is.

    `code` has the weights' shapes. In units of their row's `scale`, which is above all of them, its
    sixteen bits are

    | | from | steps in an octave | below |
    |---|---|---|---|
    | the mean | $\pm 2^{-15}$ to 1 | 8 | steps of $2^{-18}$, and zero |
    | the root of the second moment | $2^{-16}$ to 1 | 16 | is $2^{-16}$: no zero to divide by |

    A row is what one index of a weight's first axis stands for, stack axes aside. The mean, and the
    root's square, are rounded up or down by random bits so that their means are kept: to nearest, a
    change of a thousandth a step is none. The bits are hashes of step, weight and place, the same
    in each run; see [`scalex_eqx.ops.hashed`][].

    Weights of fewer than 4,096 entries, or 32 in a row, have `mean` and `root` in float32, and no
    `code`. An entry whose gradient is not finite has a root of NaN from there on.
    """

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    scale: PyTree
    code: PyTree
    mean: PyTree
    root: PyTree
    rule: PyTree


def adam_in_bytes(
    b1: Scalar, b2: Scalar, eps: Eps, eps_scaling: EpsScaling
) -> optax.GradientTransformation:
    """Adam with moments of a byte each; the arguments are those of `scale_by_adam`."""
    # The scale first: what has the weight's kind of numbers is looked at before the bytes.
    none = Degree()
    fields = (("scale", Degree(update=1)), ("code", none), ("mean", none), ("root", none))
    settings = (("moment_dtype", "int8"),)
    rule = adam_rule("scale_by_adam", b1, b2, eps, eps_scaling, settings, fields)

    def init(params: optax.Params) -> ScaleByAdamBytesState:
        scale, code, mean, root = (init_values(f, params) for f in (_scale, _code, _wide, _wide))
        return ScaleByAdamBytesState(jnp.zeros((), jnp.int32), scale, code, mean, root, rule)

    def ratio(spec, g, moments, mass1, mass2):
        epsilon = effective_eps(spec, eps, eps_scaling, b2, jnp.float32)
        mean, square = _opened(*moments[1:])
        size = moments[0] * jnp.sqrt(square / mass2) + as_dtype_of(square, epsilon)
        return (moments[0] * mean / mass1 / size).astype(g.dtype)

    def update(updates, state, params=None):
        del params
        count = jnp.asarray(optax.safe_increment(state.count))
        mass1, mass2 = (mass(b, count).astype(jnp.float32) for b in (b1, b2))
        words = hashed_words((jnp.uint32(_DITHER[0]), jnp.uint32(_DITHER[1])), count)

        def move(spec, g, *moments_and_number):
            *moments, number = moments_and_number
            bits = functools.partial(hashed, g.shape, hashed_words(words, number))
            return g, *_moved(spec, g.astype(jnp.float32), moments, b1, b2, bits)

        # By itself, so that `skip_nonfinite` can keep the old moments in front of their use.
        columns = state.scale, state.code, state.mean, state.root
        _, *moments, _ = move_values(move, updates, *columns, _numbered(updates))
        scale, code, mean, root = moments
        new_updates = map_values(
            lambda spec, g, *moments: ratio(spec, g, moments, mass1, mass2), updates, *moments
        )
        return new_updates, ScaleByAdamBytesState(count, scale, code, mean, root, rule)

    return checked(
        rule, ScaleByAdamBytesState, init, update, check=_refuse_complex, takes_complex=True
    )


def _refuse_complex(params: optax.Params) -> None:
    for w in jtu.tree_leaves(params):
        if is_trainable(w) and jnp.iscomplexobj(w):
            raise ValueError(
                f"moment_dtype is 'int8', and the moments of a weight of {w.dtype} are complex; "
                "leave it out"
            )


def _in_bytes(spec: WeightSpec, w: Array) -> bool:
    row = math.prod(w.shape[axis] for axis in own_axes(spec, w)[1:])
    return w.size >= LEAST_SIZE and row >= LEAST_ROW


def _scale(spec: WeightSpec, w: Array) -> Array:
    """Zero for each row; for a weight whose moments are float32 a one, which never changes."""
    if not _in_bytes(spec, w):
        return jnp.ones((1,) * w.ndim, jnp.float32)
    return jnp.zeros_like(jnp.sum(w, axis=own_axes(spec, w)[1:], keepdims=True), dtype=jnp.float32)


def _code(spec: WeightSpec, w: Array) -> Any:
    return jnp.zeros_like(w, dtype=jnp.uint16) if _in_bytes(spec, w) else None


def _wide(spec: WeightSpec, w: Array) -> Any:
    return None if _in_bytes(spec, w) else jnp.zeros_like(w, dtype=jnp.float32)


def _opened(code: Array | None, mean: Array | None, root: Array | None) -> tuple[Array, Array]:
    """The mean and the mean square as numbers, in units of the scale."""
    if code is not None:
        return from_byte_pairs(code)
    assert mean is not None and root is not None
    return mean, jnp.square(root)


def _moved(
    spec: WeightSpec,
    g: Float[Array, "*shape"],
    moments: Sequence[Any],
    b1: Scalar,
    b2: Scalar,
    bits: Callable[[], UInt32[Array, "*shape"]],
) -> tuple[Any, ...]:
    """The new scale, code, mean and root of one weight."""
    scale, code, *_ = moments
    mean, square = _opened(*moments[1:])
    if code is None:
        g = g / scale
        return scale, None, ema(b1, mean, g), jnp.sqrt(ema(b2, square, jnp.square(g)))
    new_scale = _above(spec, g, scale, b2)
    change, g = scale / new_scale, g * (1 / new_scale)
    mean = ema(b1, mean * change, g)
    square = ema(b2, square * jnp.square(change), jnp.square(g))
    return new_scale, to_byte_pairs(mean, square, bits()), None, None


def _above(spec: WeightSpec, g: Array, scale: Array, b2: Scalar) -> Array:
    """A new scale, above the gradient's rows and the moments that the old one was above of.

    An eighth above, so that nothing is rounded up to one. A row with a number that is not finite
    doesn't count; XLA:CPU may make anything of its maximum.
    """
    most = jnp.max(jnp.abs(g), axis=own_axes(spec, g)[1:], keepdims=True)
    most = jnp.where((most < jnp.inf) & (most > 0), 1.125 * most, 0)
    decayed = scale * jnp.sqrt(jnp.asarray(b2, jnp.float32))
    return jnp.maximum(jnp.maximum(most, decayed), jnp.finfo(jnp.float32).tiny)


def _numbered(tree: PyTree) -> PyTree:
    """A number for each weight, in the order of the tree."""
    numbers = itertools.count()
    return jtu.tree_map(
        lambda leaf: rebuilt(leaf, np.uint32(next(numbers))) if is_weight(leaf) else leaf,
        tree,
        is_leaf=is_weight,
    )
