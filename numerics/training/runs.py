"""One small Transformer, trained by every rule in every format, its loss times a power of two."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

import scalex_eqx as sx
from numerics import language_model
from numerics.language_model import BASE_WIDTH

SEED = 0
STEPS, MANY_STEPS = 60, 400
# The loss is multiplied by 2 to these.
EXPONENTS = (0, -20, -40, -60)

Moments = Literal["float32", "bfloat16"] | None


class Format(NamedTuple):
    """What numbers a model is trained in.

    - `dtype`: of weights, activations and gradients. The loss itself is computed in float32.
    - `moments`: what the rule's state is kept in; `None` for float32.
    - `loss_scale`: multiplies the loss; gradients are divided by it, in float32, before the rule.
    """

    dtype: str
    moments: Moments = None
    loss_scale: float = 1.0


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "float32": Format("float32"),
        "bfloat16": Format("bfloat16"),
        "bfloat16, moments too": Format("bfloat16", "bfloat16"),
        "float16": Format("float16"),
        "float16, loss scale 2^10": Format("float16", loss_scale=2.0**10),
    }
)


class Rule(NamedTuple):
    """How to make it from a schedule, a dtype of moments and an epsilon; its own of the last two.

    The epsilon is traced, so that those that differ in nothing else share a compiled program.
    """

    make: Callable[[optax.Schedule, Moments, Any], optax.GradientTransformation]
    peak: float
    eps: float | None = None


def _adam(rate: optax.Schedule, moments: Moments, eps: Any) -> optax.GradientTransformation:
    return sx.adam(rate, eps=eps, moment_dtype=moments)


def _parameter_scaling(rate: optax.Schedule, moments: Moments, eps: Any):
    return sx.adam_parameter_scaling(rate, eps=eps, moment_dtype=moments)


def _atan2(rate: optax.Schedule, moments: Moments, _: None) -> optax.GradientTransformation:
    return sx.adam_atan2(rate, moment_dtype=moments)


def _adafactor(rate: optax.Schedule, _: Moments, eps: Any) -> optax.GradientTransformation:
    # The width is less than what is factored by default.
    return sx.adafactor(rate, eps=eps, min_factored_size=BASE_WIDTH)


def _lion(rate: optax.Schedule, moments: Moments, _: None) -> optax.GradientTransformation:
    return sx.lion(rate, moment_dtype=moments)


def _sgd(rate: optax.Schedule, moments: Moments, _: None) -> optax.GradientTransformation:
    return sx.sgd(rate, momentum=0.9, moment_dtype=moments)


# At the base width a constant epsilon and one that follows the width are the same. The peak of
# the learning rate is the best power of 4 in float32, or near it.
RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "adam, eps 1e-8": Rule(_adam, 2.0**-6, 1e-8),
        "adam": Rule(_adam, 2.0**-6, 1e-12),
        "adam_parameter_scaling": Rule(_parameter_scaling, 2.0**-4, 1e-12),
        "adafactor": Rule(_adafactor, 2.0**-4, 1e-30),
        "adafactor, eps 0": Rule(_adafactor, 2.0**-4, 0.0),
        "adam_atan2": Rule(_atan2, 2.0**-6),
        "lion": Rule(_lion, 2.0**-8),
        "sgd, momentum 0.9": Rule(_sgd, 2.0**-2),
    }
)
# Adafactor's statistics are kept in float32 always.
_NO_MOMENTS = ("adafactor", "adafactor, eps 0")


class Run(NamedTuple):
    """The weights after training, and their loss on text that was never seen, in float32."""

    weights: list[np.ndarray]
    loss: float


def cases() -> list[tuple[str, str]]:
    """Every rule and format that go together."""
    return [
        (rule, name)
        for rule in RULES
        for name, form in FORMATS.items()
        if form.moments is None or rule not in _NO_MOMENTS
    ]


@functools.cache
def trained(rule: str, form: str, exponent: int, steps: int = STEPS) -> Run:
    """A run whose loss is multiplied by 2^exponent.

    Runs that differ in the exponent only go through the same compiled functions.
    """
    dtype, moments, loss_scale = FORMATS[form]
    make, peak, eps = RULES[rule]
    init, step = _functions(make, peak, moments, steps)
    eps = None if eps is None else jnp.asarray(eps, jnp.float32)
    model = _start(dtype)
    state = init(model, eps)
    factor = jnp.asarray(loss_scale * 2.0**exponent, jnp.float32)
    unscale = jnp.asarray(1 / loss_scale, jnp.float32)
    for index in range(steps):
        gradient = language_model.gradient(model, language_model.batch(SEED, index), factor)
        model, state = step(model, state, gradient, unscale, eps)
    weights = [np.asarray(x) for x in jax.tree.leaves(model)]
    return Run(weights, float(language_model.held_out_loss(_widened(model))))


def gradient(dtype: str, exponent: int, steps: int) -> np.ndarray:
    """All entries of a gradient in a format, of a loss multiplied by 2^exponent.

    It is that after so many steps of a run in float32, 0 for the first.
    """
    model = _start(dtype)
    if steps:
        leaves = [jnp.asarray(x, dtype) for x in trained("adam_atan2", "float32", 0, steps).weights]
        model = jax.tree.unflatten(jax.tree.structure(model), leaves)
    factor = jnp.asarray(2.0**exponent, jnp.float32)
    found = language_model.gradient(model, language_model.batch(SEED, steps), factor)
    entries = [np.asarray(x).ravel() for x in jax.tree.leaves(found)]
    return np.concatenate(entries).astype(np.float64)


@functools.cache
def _start(dtype: str) -> sx.nn.Transformer:
    """The same draw in every format, rounded."""
    model = language_model.transformer(sx.standard, BASE_WIDTH, SEED)
    return jax.tree.map(lambda x: x.astype(dtype), model)


@functools.cache
def _functions(
    make: Callable[..., optax.GradientTransformation], peak: float, moments: Moments, steps: int
) -> tuple[Callable[..., PyTree], Callable[..., tuple[PyTree, PyTree]]]:
    """A rule's first state and its step, compiled."""
    schedule = optax.cosine_decay_schedule(peak, steps)

    @jax.jit
    def step(model: PyTree, state: PyTree, gradient: PyTree, unscale: Float[Array, ""], eps: Any):
        # In float16 what is divided by the loss scale would underflow after all.
        gradient = jax.tree.map(lambda g: unscale * g, _widened(gradient))
        updates, state = make(schedule, moments, eps).update(gradient, state, model)
        return optax.apply_updates(model, updates), state

    return jax.jit(lambda model, eps: make(schedule, moments, eps).init(model)), step


def _widened(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)
