"""Sums over the gradients of single examples, and what they say of signal and noise."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._weight import Weight, is_trainable, is_weight, weights_with_paths

# On the host they are NumPy's.
_Sum = Array | np.ndarray


class Sums(NamedTuple):
    """Of one weight, entry by entry: over examples, and over batches of the mean gradient.

    **Arguments:**

    - `powers`: of $g_i$ from the first to the fourth.
    - `size`: of the absolute values, which are the products of $g_i$ with its sign.
    - `sign`, `moved`: of the signs of $g_i$, and of their squares.
    - `mean_square`, `mean_size`, `mean_sign`, `mean_moved`: the same of $G$, by batches.
    """

    powers: Float[Array, "4 ..."]
    size: Float[Array, "*shape"]
    sign: Float[Array, "*shape"]
    moved: Float[Array, "*shape"]
    mean_square: Float[Array, "*shape"]
    mean_size: Float[Array, "*shape"]
    mean_sign: Float[Array, "*shape"]
    mean_moved: Float[Array, "*shape"]


class Numbers(NamedTuple):
    """Sums over the entries of a weight, or over several weights: they may be added up.

    **Arguments:**

    - `entries`: how many have a gradient.
    - `signal`, `noise`: unbiased estimates of $\\mu^2$ and $\\sigma^2$.
    - `kurtosis`: of each entry's.
    - `share`, `sign_share`: of the share of signal in $g_i$, and of what its sign has of that
        along the mean gradient; see `_share`.
    - `mean_share`, `mean_sign_share`: the same of $G$ and of its sign.
    """

    entries: Any
    signal: Any
    noise: Any
    kurtosis: Any
    share: Any
    sign_share: Any
    mean_share: Any
    mean_sign_share: Any


def of_batch(
    of_example: Callable[[PyTree, Any], Any], model: PyTree, batch: Any
) -> dict[str, Sums]:
    """The sums over one batch, by the paths of the trained weights."""
    gradients = jax.vmap(eqx.filter_grad(of_example), in_axes=(None, 0))(model, batch)
    found = {}
    for path, weight in weights_with_paths(gradients).items():
        if weight.spec.is_trained and is_trainable(weight.value):
            found[path] = _sums(weight.value.astype(jnp.promote_types(weight.value.dtype, "f4")))
    return found


def _sums(g: Float[Array, "batch ..."]) -> Sums:
    mean, square = jnp.mean(g, axis=0), jnp.square(g)
    powers = [jnp.sum(x, axis=0) for x in (g, square, square * g, jnp.square(square))]
    sign, of_mean = jnp.sign(g), jnp.sign(mean)
    return Sums(
        jnp.stack(powers),
        jnp.sum(jnp.abs(g), axis=0),
        jnp.sum(sign, axis=0),
        jnp.sum(jnp.square(sign), axis=0),
        jnp.square(mean),
        jnp.abs(mean),
        of_mean,
        jnp.square(of_mean),
    )


def numbers(sums: Sums, examples: int, batches: int, stacked: int) -> Numbers:
    """What follows from the sums over some batches of equal size.

    **Arguments:**

    - `examples`, `batches`: over how many the sums are.
    - `stacked`: how many leading axes number separate weights; the numbers keep them.
    """
    n, (first, second, third, fourth) = examples, sums.powers / examples
    variance = jnp.maximum(second - jnp.square(first), 0)
    spread = n / (n - 1) * variance
    central = fourth - 4 * first * third + 6 * jnp.square(first) * second - 3 * first**4
    alive = second > 0
    # The sample's is low by this factor where the noise is Gaussian.
    tail = (n + 1) / (n - 1) * central / jnp.where(variance > 0, jnp.square(variance), jnp.inf)
    total, squares, total_mean = sums.powers[0], sums.powers[1], first * batches
    of_means = sums.mean_square
    found = Numbers(
        entries=alive.astype(first.dtype),
        signal=jnp.square(first) - spread / n,
        noise=spread,
        kurtosis=tail,
        share=_share(total, total, squares, squares, squares, n),
        sign_share=_share(total, sums.sign, sums.size, squares, sums.moved, n),
        mean_share=_share(total_mean, total_mean, of_means, of_means, of_means, batches),
        mean_sign_share=_share(
            total_mean, sums.mean_sign, sums.mean_size, of_means, sums.mean_moved, batches
        ),
    )
    return Numbers(*(jnp.sum(x, axis=range(stacked, x.ndim)) for x in found))


def _share(x: _Sum, y: _Sum, xy: _Sum, xx: _Sum, yy: _Sum, n: int) -> Array:
    r"""An estimate of $\rho_{xy} = E[x] E[y] / \sqrt{E[x^2] E[y^2]}$ from $n$ pairs, by their sums.

    $$\frac{\sum x \sum y - \sum x y}{(n - 1) \sqrt{\sum x^2 \sum y^2}}$$

    Its expectation is exactly 0 for noise that is as likely to have either sign, whatever its
    tails, and 1 where all are equal.
    """
    size = jnp.sqrt(xx) * jnp.sqrt(yy)
    return jnp.where(size > 0, (x * y - xy) / ((n - 1) * jnp.where(size > 0, size, 1)), 0)


def stacked_axes(model: PyTree) -> dict[str, int]:
    """How many leading axes of each weight number separate ones."""
    weights: dict[str, Weight] = {
        path: w for path, w in weights_with_paths(model).items() if is_weight(w)
    }
    return {
        path: len(w.spec.stack_axes(w.value.ndim))
        for path, w in weights.items()
        if w.spec.is_trained and is_trainable(w.value)
    }
