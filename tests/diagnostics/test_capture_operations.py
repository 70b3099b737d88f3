"""Whatever stands between a weight and the inputs: no crash, and nothing is lost in silence.

Every operation is put between a weight and what it meets, for a single matrix or vector and for
a stack, and with a scan and a vmap around it. Each weight then has a use whose sizes can be
computed, or is named as not followed.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import Captured, capture

N, STACK = 4, 3
X = jnp.ones((2, N))


@jax.custom_batching.custom_vmap
def twice(w: Any) -> Any:
    return 2 * w


@twice.def_vmap
def _(size: int, batched: Any, w: Any) -> Any:
    return 2 * w, batched[0]


def printed(w: Any) -> Any:
    jax.debug.print("{}", w.sum())
    return w


# From a weight with any leading axes and N entries along its last axes, back to its shape.
SAME_SHAPE = {
    **{
        name: getattr(jax.lax, name)
        for name in (
            *("abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "bessel_i0e", "bessel_i1e"),
            *("cbrt", "ceil", "cos", "cosh", "cumsum", "cumprod", "cummax", "cummin"),
            *("cumlogsumexp", "digamma", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1"),
            *("floor", "lgamma", "log", "log1p", "logistic", "neg", "round", "rsqrt", "sign"),
            *("sin", "sinh", "sqrt", "square", "stop_gradient", "tan", "tanh", "sort"),
            "optimization_barrier",
        )
    },
    "integer_pow": lambda w: jax.lax.integer_pow(w, 3),
    "atan2": lambda w: jax.lax.atan2(w, jnp.ones_like(w)),
    "nextafter": lambda w: jax.lax.nextafter(w, jnp.ones_like(w)),
    "rem": lambda w: jax.lax.rem(w, jnp.ones_like(w)),
    "pow": lambda w: jax.lax.pow(w, 2.0),
    "max": lambda w: jax.lax.max(w, jnp.zeros_like(w)),
    "clamp": lambda w: jax.lax.clamp(-1.0, w, 1.0),
    "select": lambda w: jax.lax.select(w > 0, w, jnp.zeros_like(w)),
    "igamma": lambda w: jax.lax.igamma(jnp.ones_like(w), w),
    "igammac": lambda w: jax.lax.igammac(jnp.ones_like(w), w),
    "zeta": lambda w: jax.lax.zeta(2 + w, jnp.ones_like(w)),
    "polygamma": lambda w: jax.lax.polygamma(jnp.ones_like(w), w),
    "betainc": lambda w: jax.lax.betainc(jnp.ones_like(w), jnp.ones_like(w), w),
    "reduce_precision": lambda w: jax.lax.reduce_precision(w, 8, 7),
    "convert": lambda w: w.astype(jnp.bfloat16).astype(w.dtype),
    "bitcast": lambda w: jax.lax.bitcast_convert_type(
        jax.lax.bitcast_convert_type(w, jnp.int32), w.dtype
    ),
    "complex": lambda w: jnp.real(jax.lax.conj(jax.lax.complex(w, w))),
    "fft": lambda w: jnp.real(jnp.fft.ifft(jnp.fft.fft(w))),
    "transpose": lambda w: jnp.moveaxis(jnp.moveaxis(w, -1, 0), 0, -1),
    "expand_dims": lambda w: jnp.squeeze(w[None], 0),
    "broadcast": lambda w: jax.lax.broadcast(w, (2,))[0],
    "reshape": lambda w: w.reshape(-1).reshape(w.shape),
    "reshape to pairs": lambda w: w.reshape(*w.shape[:-1], 2, -1).reshape(w.shape),
    "rev": lambda w: jax.lax.rev(w, (0,)),
    "rev of all": lambda w: jax.lax.rev(w, tuple(range(w.ndim))),
    "roll": lambda w: jnp.roll(w, 1, 0),
    "pad": lambda w: jnp.pad(w, [(1, 1)] * w.ndim)[(slice(1, -1),) * w.ndim],
    "pad with a shift": lambda w: jax.lax.pad(w, 0.0, [(1, -1, 0)] * w.ndim),
    "slice": lambda w: jnp.concatenate([w[:1], w[1:]]),
    "slice with strides": lambda w: jnp.repeat(w[..., ::2], 2, -1),
    "split": lambda w: jnp.concatenate(jnp.split(w, 2, -1), -1),
    "dynamic_slice": lambda w: jax.lax.dynamic_slice_in_dim(w, 0, w.shape[0]),
    "dynamic_update_slice": lambda w: jax.lax.dynamic_update_slice_in_dim(w, w[:1], 1, 0),
    "scatter": lambda w: w.at[0].set(0.0),
    "scatter_add": lambda w: w.at[jnp.asarray([0, 1])].add(1.0),
    "scatter of it": lambda w: jnp.zeros_like(w).at[0].set(w[0]),
    "gather": lambda w: w[jnp.arange(w.shape[0])],
    "gather backwards": lambda w: w[jnp.arange(w.shape[0])[::-1]],
    "take_along_axis": lambda w: jnp.take_along_axis(w, jnp.zeros(w.shape, int), 0),
    "tile": lambda w: jnp.tile(w, (2,) * w.ndim)[tuple(slice(s) for s in w.shape)],
    "reduce_sum": lambda w: w - jnp.sum(w, -1, keepdims=True),
    "reduce_max": lambda w: w / jnp.max(jnp.abs(w)),
    "reduce of all": lambda w: w / jnp.sqrt(jnp.sum(w**2)),
    "reduce over the first": lambda w: w + jnp.mean(w, 0, keepdims=True),
    "reduce_prod": lambda w: w * jnp.prod(w),
    "argsort": lambda w: jnp.take_along_axis(w, jnp.argsort(w, 0), 0),
    "argmax": lambda w: w * (jnp.argmax(w, -1, keepdims=True) == 0).astype(w.dtype),
    "top_k": lambda w: jax.lax.top_k(w, N)[0],
    "approx_max_k": lambda w: jax.lax.approx_max_k(w, N)[0],
    "reduce_window": lambda w: jax.lax.reduce_window(
        w, 0.0, jax.lax.add, (1,) * w.ndim, (1,) * w.ndim, "SAME"
    ),
    "associative_scan": lambda w: jax.lax.associative_scan(jnp.add, w),
    "softmax": lambda w: jax.nn.softmax(w, -1),
    "map": lambda w: jax.lax.map(jnp.tanh, w),
    "scan": lambda w: jax.lax.scan(lambda c, row: (c + 1, row * c), 1.0, w)[1],
    "scan of a carry": lambda w: jax.lax.scan(lambda c, _: (2 * c, None), w, length=2)[0],
    "fori_loop": lambda w: jax.lax.fori_loop(0, 2, lambda i, w: 2 * w, w),
    "while_loop": lambda w: jax.lax.while_loop(lambda w: w.sum() > 9, lambda w: w / 2, w),
    "cond": lambda w: jax.lax.cond(w.sum() > 0, lambda w: w, lambda w: -w, w),
    "switch": lambda w: jax.lax.switch(1, [lambda w: w, lambda w: 2 * w], w),
    "jit": jax.jit(lambda w: 2 * w),
    "checkpoint": jax.checkpoint(jnp.sin),
    "checkpoint with a policy": jax.checkpoint(
        jnp.sin, policy=jax.checkpoint_policies.nothing_saveable
    ),
    "custom_jvp": jax.nn.relu,
    "custom_vmap": twice,
    "pure_callback": lambda w: jax.pure_callback(lambda w: w, w, w, vmap_method="sequential"),
    "random": lambda w: w + jax.random.normal(jax.random.key(0), w.shape),
    "dropout": lambda w: jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, w.shape), w, 0),
    "linalg.norm": lambda w: w / jnp.linalg.norm(w),
    "nan_to_num": jnp.nan_to_num,
    "print": printed,
    "error_if": lambda w: eqx.error_if(w, w.sum() > 9, "too large"),
}

# Of square matrices, alone or stacked.
OF_MATRICES = {
    "cholesky": lambda w: jnp.linalg.cholesky(w @ jnp.swapaxes(w, -1, -2)),
    "inv": jnp.linalg.inv,
    "qr": lambda w: jnp.linalg.qr(w)[0],
    "svd": lambda w: jnp.linalg.svd(w)[0],
    "eigh": lambda w: jnp.linalg.eigh(w)[1],
    "lu": lambda w: jax.lax.linalg.lu(w)[0],
    "expm": jax.scipy.linalg.expm,
    "tril": jnp.tril,
    "matrix product": lambda w: w @ jnp.eye(N),
    "matrix transpose": lambda w: jnp.swapaxes(jnp.swapaxes(w, -1, -2), -1, -2),
    "conv": lambda w: jax.lax.conv_general_dilated(
        w.reshape(1, -1, N, N), jnp.ones((w.size // N**2,) * 2 + (1, 1)), (1, 1), "SAME"
    ).reshape(w.shape),
}


def weight(role: sx.Role, stacked: bool) -> sx.Weight:
    fan_in = (-1,) if role is sx.Role.hidden else ()
    spec = sx.WeightSpec(fan_in, (-2,) if fan_in else (-1,), role=role)
    shape = (N, N) if fan_in else (N,)
    return sx.Weight(0.1 * jnp.ones((STACK, *shape) if stacked else shape), spec)


def one(w: Any, x: Any) -> Any:
    """A matrix or a vector meets an input."""
    return x @ w if w.ndim == 2 else x * w[None]


# How a weight gets to the inputs, of which `f` is done to the whole or to each member.


def alone(f: Any, w: Any, x: Any) -> Any:
    return one(f(w), x)


def in_every_turn(f: Any, w: Any, x: Any) -> Any:
    return jax.lax.scan(lambda x, _: (one(f(w), x), None), x, length=2)[0]


def in_every_example(f: Any, w: Any, x: Any) -> Any:
    return jax.vmap(lambda x: one(f(w), x[None]))(x)


def in_a_branch(f: Any, w: Any, x: Any) -> Any:
    return jax.lax.cond(x.sum() > 0, lambda: one(f(w), x), lambda: x)


def one_by_one(f: Any, w: Any, x: Any) -> Any:
    return [one(member, x) for member in f(w)]


def turn_by_turn(f: Any, w: Any, x: Any) -> Any:
    return jax.lax.scan(lambda x, member: (one(f(member), x), None), x, w)[0]


def side_by_side(f: Any, w: Any, x: Any) -> Any:
    return jax.vmap(lambda member: one(f(member), x))(w)


def chosen_behind_it(f: Any, w: Any, x: Any) -> Any:
    whole = f(w)
    return jax.vmap(lambda i, x: one(whole[i], x[None]))((x[:, 0] > 0).astype(int), x)


def chosen_before_it(f: Any, w: Any, x: Any) -> Any:
    return jax.vmap(lambda i, x: one(f(w[i]), x[None]))((x[:, 0] > 0).astype(int), x)


ALONE = (alone, in_every_turn, in_every_example, in_a_branch)
STACKED = (one_by_one, turn_by_turn, side_by_side, chosen_behind_it, chosen_before_it)


WAYS = [
    *((way, sx.Role.hidden) for way in (*ALONE, *STACKED)),
    *((way, sx.Role.vector) for way in (alone, one_by_one, chosen_behind_it, chosen_before_it)),
]


@pytest.mark.parametrize(("way", "role"), WAYS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_operations_between_weight_and_inputs(way: Any, role: sx.Role):
    """Each has a weight of its own in one model."""
    done = {**SAME_SHAPE, **(OF_MATRICES if role is sx.Role.hidden else {})}
    model = {name: weight(role, way in STACKED) for name in done}

    def apply(model: Any, x: Any) -> Any:
        return [way(f, model[name].value, x) for name, f in done.items()]

    def measured() -> Captured:
        captured = capture(apply, model, X)
        for use in (use for uses in captured.uses.values() for use in uses):
            sizes = [use.weight_size(use.weight), use.input_size(use.input)]
            sizes.append(use.output_size(use.output))
            if use.kind != "elementwise":
                sizes.append(use.ratio(use.weight, use.input))
            assert {size.shape for size in sizes} == {(STACK,) if way in STACKED else ()}
        return captured

    found = eqx.filter_eval_shape(measured)
    named = {entry.path for entry in found.not_followed}
    silent = [name for name in done if not found.uses[name] and name not in named]
    assert silent == []
    # Where nothing is known of an operation its weight is named, but few are like that.
    assert len(named) < len(done) / 2
