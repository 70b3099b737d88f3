"""Sizes in a small Transformer, and the exponents that they follow as its width grows.

A size is the root mean square (RMS) of a weight's entries, or of an activation's. Its exponent
is the slope of log2(size), averaged over seeds, against log2(width). Every
seed and width has draws of its own, the same ones in every parameterization; what comes from
outside the model (tokens, the cotangent of the logits) is the same at every width as well.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import scalex_eqx as sx

WIDTHS = (64, 512)
BASE_WIDTH = WIDTHS[0]
SEEDS = 8
VOCABULARY, SEQUENCE_LENGTH, DEPTH, HEAD_DIMENSION = 16, 16, 2, 16
PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)

# Nearly all of the time goes into compiling. This changes how kernels are made, not what they
# compute.
FAST_COMPILE = {"xla_backend_optimization_level": 0}

Measure = Callable[[sx.nn.Transformer, Array], dict[str, Array]]


def sizes(
    measure: Measure, parameterization: sx.Parameterization, *, tied: bool = False
) -> dict[str, np.ndarray]:
    """log2 of what `measure(model, key)` returns for each width and seed; the key is the seed's.

    Each is an array of shape (widths, seeds).
    """
    found = [
        _measured(measure, width, sx.standard if width == BASE_WIDTH else parameterization, tied)
        for width in WIDTHS
    ]
    return {
        name: np.log2([[float(seed[name]) for seed in row] for row in found])
        for name in found[0][0]
    }


@functools.cache
def _measured(measure, width, parameterization, tied) -> list[dict[str, float]]:
    """By seed. At the base width all parameterizations are one model, and so are their rates."""

    def measured(drawn, key):
        def make(wanted):
            return drawn if wanted == width else transformer(wanted, tied, key)

        return measure(_parameterize(make, width, parameterization), key)

    run = jax.jit(measured, compiler_options=FAST_COMPILE)
    drawn = (_drawn(width, tied, seed) for seed in range(SEEDS))
    return [jax.device_get(run(one, jax.random.key(seed))) for seed, one in enumerate(drawn)]


@functools.cache
def _drawn(width, tied, seed):
    """Apart from the measurement, since it is the same in all parameterizations, and takes time."""
    return _draw(width, tied)(jax.random.fold_in(jax.random.key(seed), width))


@functools.cache
def _draw(width, tied):
    return jax.jit(functools.partial(transformer, width, tied))


@functools.cache
def roles(*, tied: bool = False) -> dict[str, sx.Role]:
    """The role of every weight, by its name."""

    def make(width):
        return transformer(width, tied, jax.random.key(0))

    return by_weight(lambda spec, _: spec.role, _parameterize(make, BASE_WIDTH, sx.standard))


def _parameterize(make, width, parameterization):
    return sx.parameterize(
        make, width=width, base_width=BASE_WIDTH, parameterization=parameterization
    )


def transformer(width: int, tied: bool, key: Array) -> sx.nn.Transformer:
    return sx.nn.Transformer(
        vocabulary_size=VOCABULARY,
        sequence_length=SEQUENCE_LENGTH,
        width=width,
        depth=DEPTH,
        head_dimension=HEAD_DIMENSION,
        tied=tied,
        key=key,
    )


def slope(logs: np.ndarray) -> float:
    """The exponent that sizes of shape (widths, seeds) grow with."""
    return float(np.polyfit(np.log2(WIDTHS), logs.mean(axis=1), 1)[0])


def rms(x: Array) -> Array:
    return jnp.sqrt(jnp.mean(jnp.square(x)))


def by_weight(f: Callable[[sx.WeightSpec, Array], Any], tree: PyTree) -> dict[str, Any]:
    """`f(spec, value)` of every weight; a layer's number stands behind those that are stacked."""
    found = {}
    for path, weight in sx.weights_with_paths(tree).items():
        if weight.spec.stack_axes(weight.value.ndim):
            for layer, value in enumerate(weight.value):
                found[f"{path}/{layer}"] = f(weight.spec, value)
        else:
            found[path] = f(weight.spec, weight.value)
    return found
