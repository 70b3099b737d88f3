"""Gradients, initial weights and first updates follow the exponents of `scalex_eqx.theory`.

Every exponent is that from width 64, the base width, to 512, of the mean of eight seeds. In
standard errors sigma of an exponent, from the scatter between seeds:

| size | sigma | tolerance |
|---|---|---|
| gradients, pooled over a role's weights | 0.003 to 0.017 | 0.05 |
| the gradient of a single weight | 0.031 or less | 0.15 |
| initial weights | 0.005 or less | 0.02 |
| first update | 0 (Adam's first update is a sign) | 0.02 |

The gradients are those under a cotangent of the logits that is drawn once a seed and is the same
at every width: the softmax's own is correlated with the readout. Each sequence holds each token
once, so that every row of the embedding has a gradient.
"""

import functools
import math
from fractions import Fraction

import equinox as eqx
import jax
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx.theory import gradient_exponents, learning_rate_exponents

from ._measure import (
    BASE_WIDTH,
    PARAMETERIZATIONS,
    VOCABULARY,
    WIDTHS,
    by_weight,
    rms,
    roles,
    sizes,
    slope,
)

BATCH = 2
LEARNING_RATE = 2.0**-8
RATES = {
    "full": sx.full_alignment,
    "none": sx.no_alignment,
    "global": sx.global_rate,
}

each_parameterization = pytest.mark.parametrize(
    "parameterization", PARAMETERIZATIONS, ids=lambda p: p.name
)


@functools.cache
def measured(
    parameterization: sx.Parameterization, *, tied: bool = False
) -> dict[str, dict[str, np.ndarray]]:
    """log2 of the RMS of each weight's gradient, initial value and update, by kind and weight."""
    flat = sizes(_measure, parameterization, tied=tied)
    kinds: dict[str, dict[str, np.ndarray]] = {}
    for name, logs in flat.items():
        kind, weight = name.split(":")
        kinds.setdefault(kind, {})[weight] = logs
    return kinds


def _measure(model, key):
    tokens_key, cotangent_key = jax.random.split(key)
    keys = jax.random.split(tokens_key, BATCH)
    tokens = jax.vmap(lambda key: jax.random.permutation(key, VOCABULARY))(keys)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    logits, pull_back = jax.vjp(lambda params: eqx.combine(params, static)(tokens), params)
    (gradient,) = pull_back(jax.random.normal(cotangent_key, logits.shape))

    found = {"gradient": by_weight(lambda _, g: rms(g), gradient)}
    found["weight"] = by_weight(_effective_size, params)
    for name, rates in RATES.items():
        tx = sx.adam(LEARNING_RATE, rates)
        update, _ = tx.update(gradient, tx.init(params), params)
        found[name] = by_weight(_effective_size, update)
    return {f"{kind}:{weight}": x for kind, by in found.items() for weight, x in by.items()}


def _effective_size(spec, value):
    return spec.multiplier * rms(value)


def deviations(logs: dict[str, np.ndarray], exponents: dict[sx.Role, Fraction]) -> dict:
    """How far each weight's size is from falling as r^-exponent."""
    found = roles(tied="readout/weight" not in logs)
    return {weight: slope(x) + float(exponents[found[weight]]) for weight, x in logs.items()}


def by_role(deviations: dict[str, float]) -> dict[sx.Role, float]:
    """The fit to a role's mean logarithm is the mean of its weights' fits."""
    found = roles(tied="readout/weight" not in deviations)
    return {
        role: float(np.mean([x for weight, x in deviations.items() if found[weight] == role]))
        for role in set(found.values())
    }


def rejected(deviations: dict, tolerance: float) -> set:
    return {name for name, x in deviations.items() if not abs(x) < tolerance}


# Gradients.


@each_parameterization
def test_gradient_exponents(parameterization):
    gradients = measured(parameterization)["gradient"]
    single = deviations(gradients, gradient_exponents(parameterization))
    assert rejected(by_role(single), 0.05) == set()
    assert rejected(single, 0.15) == set()


def test_gradient_exponents_of_a_tied_embedding():
    gradients = measured(sx.standard, tied=True)["gradient"]
    single = deviations(gradients, gradient_exponents(sx.standard.tied()))
    assert rejected(by_role(single), 0.05) == set()
    assert rejected(single, 0.15) == set()
    untied = deviations(gradients, gradient_exponents(sx.standard))
    assert rejected(by_role(untied), 0.05) == {"embedding", "hidden", "vector"}


def test_gradients_of_standard_are_not_those_of_mup():
    wrong = deviations(measured(sx.standard)["gradient"], gradient_exponents(sx.mup))
    # The embedding's exponent is 1/2 in both.
    assert rejected(by_role(wrong), 0.05) == {"hidden", "readout", "vector"}


# Initial weights.


def weight_exponents(parameterization: sx.Parameterization) -> dict[sx.Role, Fraction]:
    return {role: parameterization.a[role] + parameterization.b[role] for role in sx.Role}


def initial_spread(name: str) -> float:
    """sigma at the base width, as the layers document it; the size of a gain is 1."""
    if "embedding" in name or "gain" in name:
        return 1.0
    fan_in = 4 * BASE_WIDTH if "mlp/down" in name else BASE_WIDTH
    return fan_in**-0.5


@each_parameterization
def test_initial_weights(parameterization):
    weights = measured(parameterization)["weight"]
    assert rejected(deviations(weights, weight_exponents(parameterization)), 0.02) == set()


@each_parameterization
def test_initial_weights_have_the_documented_spread(parameterization):
    exponents = weight_exponents(parameterization)
    for name, logs in measured(parameterization)["weight"].items():
        exponent = float(exponents[roles()[name]])
        expected = math.log2(initial_spread(name)) - exponent * np.log2(
            np.divide(WIDTHS, BASE_WIDTH)
        )
        # The smallest, the readout at the base width, has 8192 entries over all seeds: sigma of
        # the mean log2(RMS) is log2(e) / sqrt(2 * 8192) = 0.011.
        assert np.abs(logs.mean(axis=1) - expected).max() < 0.04, name


def test_initial_weights_of_standard_are_not_those_of_mup():
    wrong = deviations(measured(sx.standard)["weight"], weight_exponents(sx.mup))
    assert rejected(wrong, 0.02) == {"readout/weight"}


# First updates.


def update_exponents(parameterization: sx.Parameterization, alignment: sx.Alignment) -> dict:
    rates = learning_rate_exponents(parameterization, "adam", alignment)
    return {role: parameterization.a[role] + c for role, c in rates.items()}


@pytest.mark.parametrize("alignment", ["full", "none"])
@each_parameterization
def test_first_updates(parameterization, alignment):
    updates = measured(parameterization)[alignment]
    exponents = update_exponents(parameterization, RATES[alignment])
    assert rejected(deviations(updates, exponents), 0.02) == set()
    at_base = {name: logs[0].mean() - math.log2(LEARNING_RATE) for name, logs in updates.items()}
    assert rejected(at_base, 0.02) == set()


@each_parameterization
def test_first_updates_under_a_global_rate(parameterization):
    exponents = update_exponents(parameterization, sx.full_alignment)
    wrong = deviations(measured(parameterization)["global"], exponents)
    prescribed = learning_rate_exponents(parameterization, "adam", sx.full_alignment)
    assert rejected(wrong, 0.02) == {name for name, role in roles().items() if prescribed[role]}
