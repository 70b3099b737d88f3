"""Gradients of real Transformers by parameterization and width, before and after training."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

import scalex_eqx as sx
from numerics import language_model
from numerics.language_model import BASE_WIDTH

# Each with one that takes the same steps under Adam, to which a trained model can be converted.
PARAMETERIZATIONS = {
    parameterization.name: (parameterization, trained_as)
    for parameterization, trained_as in (
        (sx.standard, sx.standard),
        (sx.ntk, sx.standard),
        (sx.mup, sx.mup),
        (sx.mean_field, sx.mup),
    )
}
WIDTHS, MORE_WIDTHS = (64, 128, 256), (64, 128, 256, 512)
SEEDS = (0, 1, 2, 3)
# Of training; 0 is the model as it was drawn.
STEPS = (0, 40)
LEARNING_RATE = 2.0**-7
# So many gradients are looked at, at the same weights.
BATCHES = 4
MATRICES = ("embedding", "hidden", "readout")
ROLES = (*MATRICES, "vector")
# What no training step has seen.
_FIRST = 10_000


class Place(NamedTuple):
    """Where gradients are looked at."""

    parameterization: str
    width: int
    seed: int
    steps: int


class Seen(NamedTuple):
    """A weight: its spec and value, and its gradients, axes batch and the weight's."""

    spec: sx.WeightSpec
    value: np.ndarray
    gradients: np.ndarray


def places(widths: tuple[int, ...], steps: int) -> Iterator[Place]:
    """All of them but those that are the base model once more: it is one for all."""
    for width in widths:
        for name in list(PARAMETERIZATIONS)[: 1 if width == BASE_WIDTH else None]:
            for seed in SEEDS:
                yield Place(name, width, seed, steps)


def at(place: Place) -> Place:
    """The place where the gradients of a place are found."""
    if place.width > BASE_WIDTH:
        return place
    return place._replace(parameterization=next(iter(PARAMETERIZATIONS)))


def seen(place: Place) -> dict[str, Seen]:
    """Every weight of the model at a place, by path."""
    return of_model(_model(place), place.seed)


def of_model(model: PyTree, seed: int) -> dict[str, Seen]:
    """Every weight of a model, by path; the seed is that of the text."""
    tokens = [language_model.batch(seed, _FIRST + step) for step in range(BATCHES)]
    found = [sx.weights_with_paths(_gradient(model, batch)) for batch in tokens]
    return {
        path: Seen(weight.spec, np.asarray(weight.value), np.stack([g[path].value for g in found]))
        for path, weight in sx.weights_with_paths(model).items()
    }


def _model(place: Place) -> Any:
    parameterization, trained_as = PARAMETERIZATIONS[place.parameterization]
    if place.steps == 0:
        return language_model.transformer(parameterization, place.width, place.seed)
    model = trained(trained_as, place.width, place.seed, place.steps)
    if parameterization is trained_as:
        return model
    return sx.convert(model, _RULE.init(model), to=parameterization, tx=_RULE)[0]


_RULE = sx.adam(LEARNING_RATE)


# Two parameterizations ask for each, one after the other.
@functools.lru_cache(maxsize=8)
def trained(parameterization: sx.Parameterization, width: int, seed: int, steps: int) -> Any:
    """A model after some steps of Adam, all hyperparameters those of the base width."""
    model: Any = language_model.transformer(parameterization, width, seed)
    state = _RULE.init(model)
    for step in range(steps):
        model, state = _step(model, state, _gradient(model, language_model.batch(seed, step)))
    return model


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _step(model: PyTree, state: PyTree, gradient: PyTree) -> tuple[PyTree, PyTree]:
    updates, state = _RULE.update(gradient, state, model)
    return optax.apply_updates(model, updates), state


def _gradient(model: PyTree, tokens: jax.Array) -> PyTree:
    # The gradient of the effective weights first: all parameterizations share its program.
    effective, pull = eqx.filter_vjp(sx.resolve, model)
    return pull(language_model.gradient(effective, tokens, jnp.ones(())))[0]
